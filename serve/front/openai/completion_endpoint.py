"""POST /v1/completions."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from nemotrt.serve.front.http.api_error import from_upstream
from nemotrt.serve.front.http.event_stream import DONE
from nemotrt.serve.front.openai.chat_endpoint import counts, known_cached_tokens, usage
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.openai.guided import guide_field
from nemotrt.serve.front.openai.inputs import (
    Prompt,
    choices_of,
    completion_inputs,
    cut_prompt,
    prompt_ids,
)
from nemotrt.serve.front.openai.logprobs import CompletionLogprobs, prompt_logprobs
from nemotrt.serve.front.schema.requests import CompletionRequest
from nemotrt.serve.front.upstream.merge_streams import merged
from nemotrt.serve.front.upstream.upstream import Fields, Upstream, UpstreamError

Json = dict[str, Any]


class CompletionChoice:
    """One choice: the text so far, its counts and its end."""

    def __init__(
        self, index: int, files: EngineFiles, request: CompletionRequest, prompt: Prompt
    ) -> None:
        """Start with the echoed prompt, if any."""
        echoed = _text(prompt, files) if request.echo else None
        self.index = index
        self.num_input_tokens = 0
        self.num_cached_tokens: int | None = None  # where the engine keeps prefixes
        self.num_output_tokens = 0
        self.finish_reason: str | None = None
        self._files = files
        self._unsent = echoed or ""
        self._text: list[str] = []
        self._logprobs: list[Json] = []
        self._scoring: CompletionLogprobs | None = None
        if request.logprobs is not None:
            self._scoring = CompletionLogprobs(
                request.logprobs,
                prompt,
                echoed,
                skip_special_tokens=request.skip_special_tokens,
            )
        self._num_prompt_top = request.prompt_logprobs
        self._prompt_logprobs: list[Json | None] | None = None
        self._token_ids: list[int] | None = None
        self._prompt_ids: Json = {}
        if request.return_token_ids:
            special = request.add_special_tokens
            ids = prompt_ids(prompt, files, add_special_tokens=special)
            self._token_ids, self._prompt_ids = [], {"prompt_token_ids": ids}
        self._unsent_ids = self._prompt_ids

    def push(self, fields: Fields) -> Json | None:
        """Add fields; return the part of the chunk to send, None if there is none."""
        text = self._unsent + fields.get("text_output", "")
        self._unsent = ""
        self._text.append(text)
        logprobs = None if self._scoring is None else self._scoring.part(fields, self._files)
        if logprobs is not None:
            self._logprobs.append(logprobs)
        if self._num_prompt_top is not None and "prompt_ids" in fields:
            self._prompt_logprobs = prompt_logprobs(fields, self._files, self._num_prompt_top)
        self.num_input_tokens = fields.get("num_input_tokens", self.num_input_tokens)
        self.num_cached_tokens = fields.get("num_cached_tokens", self.num_cached_tokens)
        self.num_output_tokens = fields.get("num_output_tokens", self.num_output_tokens)
        if fields.get("final"):
            self.finish_reason = fields["finish_reason"]
        ids = fields.get("output_ids", []) if self._token_ids is not None else []
        if not (text or logprobs or ids or self.finish_reason):
            return None
        choice = self._choice(text, logprobs)
        if self._token_ids is not None:
            self._token_ids += ids
            choice |= {"token_ids": ids, **self._unsent_ids}
            self._unsent_ids = {}
        return choice

    def whole(self) -> Json:
        """Return the whole choice."""
        choice = self._choice("".join(self._text), _joined(self._logprobs))
        if self._num_prompt_top is not None:
            choice["prompt_logprobs"] = self._prompt_logprobs
        if self._token_ids is not None:
            choice |= {"token_ids": self._token_ids, **self._prompt_ids}
        return choice

    def _choice(self, text: str, logprobs: Json | None) -> Json:
        return {
            "index": self.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": self.finish_reason,
        }


class CompletionCall:
    """One request on its way through; prompts times n choices."""

    stream_end = DONE

    def __init__(self, request: CompletionRequest, files: EngineFiles) -> None:
        """Lay out the choices.

        Raises:
            ApiError: a field has no effect.
        """
        self.inputs: list[Fields] = []
        self._choices: list[CompletionChoice] = []
        self._request = request
        self._files = files
        special = request.add_special_tokens
        self._prompts = [
            cut_prompt(request, prompt, files, add_special_tokens=special)
            for prompt in request.prompts
        ]
        for prompt in self._prompts:
            self.inputs += choices_of(completion_inputs(request, prompt), request.n)
            for _ in range(request.n):
                index = len(self._choices)
                self._choices.append(CompletionChoice(index, files, request, prompt))
        options = request.stream_options
        self._with_usage = bool(options and options.include_usage)
        self._with_progress = bool(options and options.continuous_usage_stats)
        self._base = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.model,
            **files.fingerprint_field,
        }

    async def chunks(self, upstream: Upstream) -> AsyncIterator[list[Json]]:
        """Yield the chunks of a streamed answer.

        Raises:
            ApiError: a request behind the front was refused or failed.
        """
        base: Json = {**self._base, **({"usage": None} if self._with_usage else {})}
        num_input_tokens = await self._count_prompts() if self._with_progress else None
        try:
            async for index, fields in merged(upstream, self.inputs):
                choice = self._choices[index].push(fields)
                if self._with_progress:
                    base["usage"] = self._usage(num_input_tokens)
                if choice is not None:
                    yield [base | {"choices": [choice]}]
        except UpstreamError as error:
            raise from_upstream(error, "prompt", guide_field(self._request)) from error
        if self._with_usage:
            yield [self._base | {"choices": [], "usage": self._usage()}]

    async def completion(self, upstream: Upstream) -> Json:
        """Return the whole answer.

        Raises:
            ApiError: a request behind the front was refused or failed.
        """
        try:
            async for index, fields in merged(upstream, self.inputs):
                self._choices[index].push(fields)
        except UpstreamError as error:
            raise from_upstream(error, "prompt", guide_field(self._request)) from error
        choices = [choice.whole() for choice in self._choices]
        return self._base | {"choices": choices, "usage": self._usage()}

    def counts(self) -> Json:
        """Return what a log says of the answer."""
        return counts(self._usage(), [choice.finish_reason for choice in self._choices])

    async def _count_prompts(self) -> int | None:
        """Return the tokens of several prompts, None for one, which its first response counts.

        The engine counts a prompt when it takes it, which may be long after the first chunk.
        """
        tokenizer = self._files.tokenizer
        if len(self._prompts) == 1 or tokenizer is None:
            return None
        encode = partial(tokenizer.encode, add_special_tokens=self._request.add_special_tokens)

        def count() -> int:
            return sum(len(encode(p) if isinstance(p, str) else p) for p in self._prompts)

        return await asyncio.to_thread(count)

    def _usage(self, num_input_tokens: int | None = None) -> Json:
        """Return the counts so far; `num_input_tokens` where they are known before."""
        n = self._request.n
        of_prompts = [self._choices[i : i + n] for i in range(0, len(self._choices), n)]
        if num_input_tokens is None:
            num_input_tokens = sum(max(c.num_input_tokens for c in own) for own in of_prompts)
        num_output_tokens = sum(choice.num_output_tokens for choice in self._choices)
        return usage(num_input_tokens, num_output_tokens, known_cached_tokens(of_prompts))


def _text(prompt: Prompt, files: EngineFiles) -> str:
    """Return a prompt's text."""
    if isinstance(prompt, str):
        return prompt
    return "" if files.tokenizer is None else files.tokenizer.decode(prompt)


def _joined(parts: list[Json]) -> Json | None:
    """Return log-probabilities whose parts came one after the other, None if there are none."""
    if not parts:
        return None
    return {name: [item for part in parts for item in part[name]] for name in parts[0]}
