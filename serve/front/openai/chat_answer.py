"""One choice of a chat: from output tensors to reasoning, content and tool calls."""

from collections.abc import Mapping
from typing import Any

from nemotrt.engines.model.families import CallFormat
from nemotrt.engines.text.reasoning import Split, TraceReader
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.openai.logprobs import chat_logprobs
from nemotrt.serve.front.schema.requests import ChatRequest
from nemotrt.serve.front.tools.tool_calls import CallDelta, ToolCallParser
from nemotrt.serve.front.upstream.upstream import Fields

Delta = dict[str, Any]


def _named_reasoning(text: str | None) -> Delta:
    """Return a trace by the name that most clients read, and by vLLM's newer one."""
    return {"reasoning_content": text, "reasoning": text}


class ChatAnswer:
    """Takes fields as they come, gives deltas, and keeps the whole for a plain response."""

    def __init__(
        self, index: int, files: EngineFiles, splitter: TraceReader | None, request: ChatRequest
    ) -> None:
        """Start choice `index`; without a splitter the trace stays in the content."""
        self.index = index
        self.num_input_tokens = 0
        self.num_cached_tokens: int | None = None  # where the engine keeps prefixes
        self.num_output_tokens = 0
        self.num_reasoning_tokens = 0
        self.finish_reason: str | None = None
        self._files = files
        self._splitter = splitter
        self._shows_reasoning = request.include_reasoning
        self._token_ids: list[int] | None = [] if request.return_token_ids else None
        self._is_of_functions = bool(request.functions)
        self._parser: ToolCallParser | None = None
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._calls: list[Delta] = []
        self._arguments: list[list[str]] = []  # of each call, in pieces
        self._logprobs: list[Any] | None = None
        self.prompt: Fields | None = None  # with the prompt's log-probabilities

    def first_choice(self) -> Delta:
        """Return the choice of the first chunk, which has the role."""
        delta = {"role": "assistant", "content": ""}
        return {"index": self.index, "delta": delta, "logprobs": None, "finish_reason": None}

    def expect_tool_calls(
        self,
        calls: CallFormat,
        functions: Mapping[str, Any],
        max_calls: int | None = None,
    ) -> None:
        """Look for tool calls in the content; the answer ends with the call `max_calls`.

        `functions` are the schemas of the tools' arguments by their names.
        """
        self._parser = ToolCallParser(calls, max_calls, functions)

    def push(self, fields: Fields) -> list[Delta]:
        """Add fields; return the choice's part of the chunks to send, none or several."""
        is_final = bool(fields.get("final"))
        split = self._split(fields.get("text_output", ""), is_final)
        content, calls = self._parse(split.content, is_final)
        deltas: list[Delta] = []
        if split.reasoning and self._shows_reasoning:
            self._reasoning.append(split.reasoning)
            deltas.append(_named_reasoning(split.reasoning))
        if content:
            self._content.append(content)
            deltas.append({"content": content})
        deltas += [self._call(delta) for delta in calls]
        logprobs = chat_logprobs(fields, self._files)
        if logprobs is not None:
            self._logprobs = self._logprobs or []
            self._logprobs += logprobs["content"]
        if "prompt_ids" in fields:
            self.prompt = fields
        self.num_input_tokens = fields.get("num_input_tokens", self.num_input_tokens)
        self.num_cached_tokens = fields.get("num_cached_tokens", self.num_cached_tokens)
        self.num_output_tokens = fields.get("num_output_tokens", self.num_output_tokens)
        self.num_reasoning_tokens = fields.get("num_reasoning_tokens", self.num_reasoning_tokens)
        is_full = self._parser is not None and self._parser.is_full
        if is_final or is_full:
            self._finish("stop" if is_full else fields["finish_reason"])
        more: Delta = {} if logprobs is None else {"logprobs": logprobs}
        if self._token_ids is not None:
            more["token_ids"] = fields.get("output_ids", [])
            self._token_ids += more["token_ids"]
        return self._choices(deltas, more, is_final or is_full)

    def message(self) -> Delta:
        """Return the whole choice of a plain response."""
        message: Delta = {"role": "assistant", "content": "".join(self._content)}
        if self._splitter is not None and self._shows_reasoning:
            message |= _named_reasoning("".join(self._reasoning) or None)
        if self._calls:
            calls = [
                {**call, "function": {**call["function"], "arguments": "".join(pieces)}}
                for call, pieces in zip(self._calls, self._arguments, strict=True)
            ]
            is_old = self._is_of_functions
            message |= {"function_call": calls[0]["function"]} if is_old else {"tool_calls": calls}
        logprobs = None
        if self._logprobs is not None:
            logprobs = {"content": self._logprobs, "refusal": None}
        return {
            "index": self.index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": self.finish_reason,
            **({} if self._token_ids is None else {"token_ids": self._token_ids}),
        }

    def _split(self, text: str, is_final: bool) -> Split:
        if self._splitter is None:
            return Split(content=text)
        split = self._splitter.push(text)
        rest = self._splitter.flush() if is_final else Split()
        return Split(split.reasoning + rest.reasoning, split.content + rest.content)

    def _parse(self, content: str, is_final: bool) -> tuple[str, list[CallDelta]]:
        if self._parser is None:
            return content, []
        text, calls = self._parser.push(content)
        if is_final:
            rest, more = self._parser.flush()
            text, calls = text + rest, calls + more
        return text, calls

    def _call(self, delta: CallDelta) -> Delta:
        """Return a tool call's part as a delta, and add it to the whole."""
        if delta.name is not None:
            function = {"name": delta.name, "arguments": delta.arguments}
            call = {"id": delta.call_id, "type": "function", "function": function}
            self._calls.append(call)
            self._arguments.append([delta.arguments])
            return self._named_call({"index": delta.index, **call})
        self._arguments[delta.index].append(delta.arguments)
        return self._named_call({"index": delta.index, "function": {"arguments": delta.arguments}})

    def _named_call(self, part: Delta) -> Delta:
        """Return a call's part by the name that the request knows."""
        is_old = self._is_of_functions
        return {"function_call": part["function"]} if is_old else {"tool_calls": [part]}

    def _finish(self, reason: str) -> None:
        """Say why the answer ended: by calls only if the last one is whole."""
        called = "function_call" if self._is_of_functions else "tool_calls"
        is_cut = self._parser is not None and self._parser.is_cut
        is_called = self._calls and reason == "stop" and not is_cut
        self.finish_reason = called if is_called else reason

    def _choices(self, deltas: list[Delta], more: Delta, is_final: bool) -> list[Delta]:
        """Return the chunks' choices; the first has `more` of the tokens, the last the reason."""
        if (is_final or any(more.values())) and not deltas:
            deltas = [{}]
        choices: list[Delta] = [
            {"index": self.index, "delta": delta, "logprobs": None, "finish_reason": None}
            for delta in deltas
        ]
        if choices:
            choices[0] |= more
        if is_final:
            choices[-1]["finish_reason"] = self.finish_reason
        return choices
