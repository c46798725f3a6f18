"""An OpenAI-compatible server: ours, vLLM, trtllm-serve, and others."""

from collections.abc import Mapping
from typing import Any

from nemotrt.profiles.load.exchange import Ending, Exchange
from nemotrt.profiles.load.http.event_parser import EventParser
from nemotrt.profiles.load.http.http_client import HttpClient
from nemotrt.profiles.load.prompts import Chat, Prompt, PromptMaker
from nemotrt.profiles.load.target import OpenAiApi, Target, TargetError
from nemotrt.profiles.load.targets.token_count import TokenCount
from nemotrt.profiles.load.targets.triton_http import check_answers, parse_event

# `ignore_eos`, `min_tokens` and `continuous_usage_stats` (counts with every chunk) are extensions
# that vLLM and trtllm-serve share.
EXACT = {
    "ignore_eos": True,
    "temperature": 0.0,
    "stream": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
}
DONE = b"[DONE]"


class OpenAiTarget(Target):
    """Posts to /v1/completions or /v1/chat/completions.

    A chat template adds tokens to the prompt, so chat's ISL is the text's alone.
    """

    def __init__(
        self,
        client: HttpClient,
        maker: PromptMaker,
        *,
        model: str,
        is_chat: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Talk to `model` through `client`; `extra` are further fields of every request."""
        self._client, self._maker, self._model, self._is_chat = client, maker, model, is_chat
        self.maker = maker
        self._extra = dict(extra or {})
        self.openai = OpenAiApi(
            client.url,
            model,
            is_chat,
            client.headers,
            client.stall_timeout_s,
            maker.tokenizer,
            self._fields,
        )

    @property
    def facts(self) -> Mapping[str, str | int]:
        """Return the address."""
        kind = "openai-chat" if self._is_chat else "openai-completions"
        facts = {"kind": kind, "address": self._client.url, "model": self._model}
        return facts | self._maker.facts

    def prompt(self, index: int, isl: int) -> Prompt:
        """Return a text of `isl` tokens."""
        return self._maker.text(index, isl)

    def chat_prompt(self, chat: Chat) -> Prompt:
        """Return the conversation as it is."""
        return Prompt((), chat=chat) if self._is_chat else super().chat_prompt(chat)

    async def open(self) -> None:
        """Check that the server answers."""
        await check_answers(self._client, "/v1/models")

    async def send(self, prompt: Prompt, exchange: Exchange) -> None:
        """Stream one answer."""
        stream, count = EventParser(), TokenCount(exchange, self._maker.tokenizer)
        is_done = False

        def take(arrived_s: float, piece: bytes) -> None:
            nonlocal is_done
            for data in stream.feed(piece):
                if data == DONE:
                    is_done = True
                else:
                    self._note(parse_event(data), arrived_s, exchange, count)

        path = "/v1/chat/completions" if self._is_chat else "/v1/completions"
        await self._client.post(path, self._body(prompt, exchange.osl), take, exchange.mark_sent)
        if stream.is_broken_off or not is_done:
            raise TargetError("the server ended its stream without [DONE].", Ending.MALFORMED)
        if not exchange.finish_reason:
            what = "the server ended its stream without a finish reason."
            raise TargetError(what, Ending.MALFORMED)
        if prompt.chat and count.num_input_tokens is not None:
            exchange.isl = count.num_input_tokens
        if self._is_chat:
            count.num_input_tokens = None  # holds the chat template too
        count.settle()

    async def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _fields(self, osl: int) -> dict[str, Any]:
        """Return what every request says beside model and prompt; answers have `osl` tokens."""
        fields = {"max_tokens": osl, "min_tokens": osl} | EXACT | self._extra
        return {name: value for name, value in fields.items() if value is not None}

    def _body(self, prompt: Prompt, osl: int) -> dict[str, Any]:
        """Return the request."""
        body: dict[str, Any] = {"model": self._model}
        if prompt.chat:
            body["messages"] = prompt.chat.messages
            body |= {"tools": prompt.chat.tools} if prompt.chat.tools else {}
        elif self._is_chat:
            body["messages"] = [{"role": "user", "content": prompt.text}]
        else:
            body["prompt"] = prompt.text
        return body | self._fields(osl)

    def _note(
        self, event: dict[str, Any], arrived_s: float, exchange: Exchange, count: TokenCount
    ) -> None:
        """Count a chunk's tokens; usage beside text is a running total, alone it is the total."""
        usage = event.get("usage") or {}
        completed = usage.get("completion_tokens")
        if usage.get("prompt_tokens") is not None:
            count.num_input_tokens = usage["prompt_tokens"]
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        if cached is not None:
            exchange.cached_tokens = int(cached)
        if not event.get("choices"):
            count.total = completed if completed is not None else count.total
            return
        choice = event["choices"][0]
        if not isinstance(choice, dict):
            what = f"the server sent {choice!r} where a choice belongs."
            raise TargetError(what, Ending.MALFORMED)
        text = _text(choice)
        count.add(arrived_s, text, completed if text else None)
        if choice.get("finish_reason"):
            count.end(arrived_s, completed)
            exchange.finish_reason = choice["finish_reason"]


def _text(choice: dict[str, Any]) -> str:
    """Return what a chunk says: of an answer, of the reasoning before it, or of a tool call."""
    delta = choice.get("delta") or {}
    spoken = (delta.get(name) for name in ("content", "reasoning_content", "reasoning"))
    text: str = choice.get("text") or next(filter(None, spoken), "")
    calls = (call.get("function") or {} for call in delta.get("tool_calls") or ())
    parts = (call.get(name) for call in calls for name in ("name", "arguments"))
    return text or "".join(filter(None, parts)) or ("call" if delta.get("tool_calls") else "")
