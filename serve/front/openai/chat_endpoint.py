"""POST /v1/chat/completions."""

import secrets
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Protocol

from nemotrt.engines.model.families import CallFormat
from nemotrt.engines.text.chat.turn import read_turn
from nemotrt.engines.text.reasoning import TraceReader
from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.serve.front.http.api_error import ApiError, from_upstream
from nemotrt.serve.front.http.event_stream import DONE
from nemotrt.serve.front.openai.chat_answer import ChatAnswer
from nemotrt.serve.front.openai.conversation import chat_prompt
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.openai.guided import guide_field
from nemotrt.serve.front.openai.inputs import (
    chat_inputs,
    choices_of,
    cut_prompt,
    prompt_ids,
)
from nemotrt.serve.front.openai.logprobs import prompt_logprobs
from nemotrt.serve.front.schema.requests import ChatRequest
from nemotrt.serve.front.tools.tool_calls import ToolCallParser
from nemotrt.serve.front.upstream.merge_streams import merged
from nemotrt.serve.front.upstream.upstream import Fields, Upstream, UpstreamError

Json = dict[str, Any]


class ChatCall:
    """One request on its way through."""

    stream_end = DONE

    def __init__(
        self, request: ChatRequest, files: EngineFiles, *, separate_reasoning: bool
    ) -> None:
        """Render the prompt; `separate_reasoning` holds where the request says nothing of it.

        Raises:
            ApiError: the chat template refuses the messages.
        """
        text = chat_prompt(request, files)
        prompt = cut_prompt(request, text, files, add_special_tokens=False)
        if isinstance(prompt, list) and files.tokenizer is not None:
            text = files.tokenizer.decode(prompt, skip_special_tokens=False)
        self._turn = turn = read_turn(text, files.template)
        self._files = files
        self._guide_field = guide_field(request)
        self._num_prompt_top = request.prompt_logprobs
        is_split = request.separate_reasoning
        is_split = separate_reasoning if is_split is None else is_split
        if not (is_split or request.include_reasoning):
            text = "include_reasoning: false needs a trace apart; send separate_reasoning: true."
            raise ApiError(400, text, param="include_reasoning")
        inputs = chat_inputs(request, prompt, turn, separate_reasoning=is_split)
        self.inputs = choices_of(inputs, request.n)
        self._answers = [
            ChatAnswer(i, files, TraceReader(turn.chat, turn.trace) if is_split else None, request)
            for i in range(request.n)
        ]
        self._calls: tuple[CallFormat, dict[str, Any], int | None] | None = None
        if request.tools and request.tool_choice != "none":
            is_single = request.parallel_tool_calls is False
            if is_single:  # the answer ends with its first call, which has to be seen at once
                self.inputs = [i | {"stream": True, "return_progress": True} for i in self.inputs]
            functions = {tool.function.name: tool.function.parameters for tool in request.tools}
            self._calls = turn.chat.calls, functions, 1 if is_single else None
            for answer in self._answers:
                answer.expect_tool_calls(*self._calls)
        options = request.stream_options
        self._with_usage = bool(options and options.include_usage)
        self._with_progress = bool(options and options.continuous_usage_stats)
        self._base = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": request.model,
            **files.fingerprint_field,
        }
        self._prompt_ids: Json = {}
        if request.return_token_ids:
            ids = prompt_ids(prompt, files, add_special_tokens=False)
            self._prompt_ids = {"prompt_token_ids": ids}

    @property
    def model(self) -> Any:
        """The model's name in the answer."""
        return self._base["model"]

    def readers(self) -> tuple[TraceReader, ToolCallParser | None]:
        """Return readers of a trace and of calls, as each answer has them."""
        splitter = TraceReader(self._turn.chat, self._turn.trace)
        if self._calls is None:
            return splitter, None
        calls, functions, max_calls = self._calls
        return splitter, ToolCallParser(calls, max_calls, functions)

    @property
    def tokenizer(self) -> Tokenizer | None:
        """What the answer's tokens are of."""
        return self._files.tokenizer

    async def chunks(self, upstream: Upstream) -> AsyncIterator[list[Json]]:
        """Yield the chunks of a streamed answer.

        Raises:
            ApiError: a request behind the front was refused or failed.
        """
        base: dict[str, Any] = {**self._base, "object": "chat.completion.chunk"}
        if self._with_usage:
            base["usage"] = None
        head = [answer.first_choice() for answer in self._answers]
        try:
            async for index, fields in merged(upstream, self.inputs, self._is_done):
                choices = self._answers[index].push(fields)
                if self._with_progress:
                    base["usage"] = self._usage()
                if head or choices:
                    parts = [base | {"choices": [choice]} for choice in (*head, *choices)]
                    parts[0] |= self._prompt_ids if head else {}
                    yield parts
                    head = []
        except UpstreamError as error:
            raise from_upstream(error, "messages", self._guide_field) from error
        if self._with_usage:
            yield [base | {"choices": [], "usage": self._usage()}]

    async def completion(self, upstream: Upstream) -> Json:
        """Return the whole answer.

        Raises:
            ApiError: a request behind the front was refused or failed.
        """
        try:
            async for index, fields in merged(upstream, self.inputs, self._is_done):
                self._answers[index].push(fields)
        except UpstreamError as error:
            raise from_upstream(error, "messages", self._guide_field) from error
        choices = [answer.message() for answer in self._answers]
        body: Json = {"object": "chat.completion", "choices": choices, "usage": self._usage()}
        body |= self._prompt_ids
        prompt = self._answers[0].prompt
        if self._num_prompt_top is not None and prompt is not None:
            body["prompt_logprobs"] = prompt_logprobs(prompt, self._files, self._num_prompt_top)
        return self._base | body

    def counts(self) -> Json:
        """Return what a log says of the answer."""
        return counts(self._usage(), [answer.finish_reason for answer in self._answers])

    def _is_done(self, index: int) -> bool:
        return self._answers[index].finish_reason is not None

    def _usage(self) -> Json:
        num_input_tokens = max(answer.num_input_tokens for answer in self._answers)  # one prompt
        num_output_tokens = sum(answer.num_output_tokens for answer in self._answers)
        told = usage(num_input_tokens, num_output_tokens, known_cached_tokens([self._answers]))
        num_reasoning_tokens = sum(answer.num_reasoning_tokens for answer in self._answers)
        told["completion_tokens_details"] = {"reasoning_tokens": num_reasoning_tokens}
        return told


class ChatDoor:
    """The call of a door that makes a chat of its body, and of the answer something else."""

    stream_end = b""

    def __init__(self, chat: ChatCall) -> None:
        """Take the chat."""
        self._chat = chat

    @property
    def inputs(self) -> list[Fields]:
        """The tensors of the chat."""
        return self._chat.inputs

    @inputs.setter
    def inputs(self, inputs: list[Fields]) -> None:
        self._chat.inputs = inputs

    def counts(self) -> Json:
        """Return what a log says of the chat."""
        return self._chat.counts()


class HasCachedTokens(Protocol):
    """A choice, of which the engine may say how much of its prompt was kept."""

    num_cached_tokens: int | None


def known_cached_tokens(prompts: Iterable[Sequence[HasCachedTokens]]) -> int | None:
    """Return how many tokens of the prompts were kept, given the choices of each; None: unknown.

    A prompt counts once: of its choices the one counts that had to compute the most of it.
    """
    known = (
        [c.num_cached_tokens for c in own if c.num_cached_tokens is not None] for own in prompts
    )
    least = [min(own) for own in known if own]
    return sum(least) if least else None


def usage(num_input_tokens: int, num_output_tokens: int, num_cached_tokens: int | None) -> Json:
    """Return OpenAI's usage counts; where no prefix is kept they say nothing of cached tokens."""
    counts: Json = {
        "prompt_tokens": num_input_tokens,
        "completion_tokens": num_output_tokens,
        "total_tokens": num_input_tokens + num_output_tokens,
    }
    if num_cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": num_cached_tokens}
    return counts


def counts(usage: Json, reasons: Iterable[str | None]) -> Json:
    """Return what a log says of an answer with that usage; nothing where no prompt was counted."""
    if not usage["prompt_tokens"]:
        return {}
    told = {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
    for details in ("prompt_tokens_details", "completion_tokens_details"):
        told |= usage.get(details, {})
    return {**told, "finish_reasons": [reason for reason in reasons if reason is not None]}
