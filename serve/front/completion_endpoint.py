"""POST /v1/completions."""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from nemotrt.serve.front.api_error import from_upstream
from nemotrt.serve.front.chat_endpoint import usage
from nemotrt.serve.front.engine_files import EngineFiles
from nemotrt.serve.front.inputs import choices_of, completion_inputs
from nemotrt.serve.front.logprobs import completion_logprobs
from nemotrt.serve.front.merge_streams import merged
from nemotrt.serve.front.schema import CompletionRequest
from nemotrt.serve.front.upstream import Fields, Upstream, UpstreamError

Json = dict[str, Any]


class CompletionChoice:
    """One choice: the text so far, its counts and its end."""

    def __init__(self, index: int, files: EngineFiles, echoed: str) -> None:
        """Start with the echoed prompt, if any."""
        self.index = index
        self.num_input_tokens = 0
        self.num_output_tokens = 0
        self.finish_reason: str | None = None
        self._files = files
        self._echoed = echoed
        self._text: list[str] = []
        self._logprobs: Json | None = None

    def push(self, fields: Fields) -> Json | None:
        """Add fields; return the part of the chunk to send, None if there is none."""
        text = self._echoed + fields.get("text_output", "")
        offset = sum(len(part) for part in self._text)
        self._echoed = ""
        self._text.append(text)
        logprobs = completion_logprobs(fields, self._files, offset)
        if logprobs is not None:
            self._logprobs = _joined(self._logprobs, logprobs)
        if fields.get("final"):
            self.finish_reason = fields["finish_reason"]
            self.num_input_tokens = fields["num_input_tokens"]
            self.num_output_tokens = fields["num_output_tokens"]
        if not (text or logprobs or self.finish_reason):
            return None
        return self._choice(text, logprobs)

    def whole(self) -> Json:
        """Return the whole choice."""
        return self._choice("".join(self._text), self._logprobs)

    def _choice(self, text: str, logprobs: Json | None) -> Json:
        return {
            "index": self.index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": self.finish_reason,
        }


class CompletionCall:
    """One request on its way through; prompts times n choices."""

    def __init__(self, request: CompletionRequest, files: EngineFiles) -> None:
        """Lay out the choices."""
        self.inputs: list[Fields] = []
        self._choices: list[CompletionChoice] = []
        self._n = request.n
        for prompt in request.prompts:
            self.inputs += choices_of(completion_inputs(request, prompt), request.n)
            echoed = _text(prompt, files) if request.echo else ""
            for _ in range(request.n):
                self._choices.append(CompletionChoice(len(self._choices), files, echoed))
        self._with_usage = bool(request.stream_options and request.stream_options.include_usage)
        self._base = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": request.model,
        }

    async def chunks(self, upstream: Upstream) -> AsyncIterator[list[Json]]:
        """Yield the chunks of a streamed answer.

        Raises:
            ApiError: a request behind the front was refused or failed.
        """
        try:
            async for index, fields in merged(upstream, self.inputs):
                choice = self._choices[index].push(fields)
                if choice is not None:
                    yield [self._base | {"choices": [choice]}]
        except UpstreamError as error:
            raise from_upstream(error) from error
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
            raise from_upstream(error) from error
        choices = [choice.whole() for choice in self._choices]
        return self._base | {"choices": choices, "usage": self._usage()}

    def _usage(self) -> Json:
        num_input_tokens = sum(choice.num_input_tokens for choice in self._choices[:: self._n])
        return usage(num_input_tokens, sum(choice.num_output_tokens for choice in self._choices))


def _text(prompt: str | list[int], files: EngineFiles) -> str:
    """Return a prompt's text."""
    if isinstance(prompt, str):
        return prompt
    return "" if files.tokenizer is None else files.tokenizer.decode(prompt)


def _joined(whole: Json | None, part: Json) -> Json:
    """Return log-probabilities with a part added."""
    return part if whole is None else {name: whole[name] + part[name] for name in whole}
