"""An upstream that says one text, and what is asked of the front over it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.text.chat.template import load_chat_template
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.upstream.upstream import Fields, UpstreamError

FOLDER = TINY_MODELS["tiny"]
FILES = EngineFiles(
    load_tokenizer(FOLDER), load_chat_template(FOLDER), Limits(8, 512, chunk_tokens=32)
)
SAID = 'Let me see.</think>\n\nOk. <TOOLCALL>[{"name": "now", "arguments": {}}]</TOOLCALL>'
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
CHAT_BODY: dict[str, Any] = {"model": "llm", "messages": [{"role": "user", "content": "Hi"}]}
COMPLETION_BODY: dict[str, Any] = {"model": "llm", "prompt": "Hi you"}
# A value of each field of ours that asks for something else than leaving it out does.
BOTH_VALUES: dict[str, Any] = {
    "max_tokens": 7,
    "temperature": 0.3,
    "top_p": 0.4,
    "n": 2,
    "stream": True,
    "stream_options": {"include_usage": True},
    "stop": ["x", "y"],
    "seed": 5,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "user": "ada",
    "metadata": {"a": "b"},
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "top_k": 4,
    "repetition_penalty": 1.5,
    "min_tokens": 3,
    "ignore_eos": True,
    "stop_token_ids": [9],
    "priority": -2,
    "timeout_ms": 5000,
    "prompt_logprobs": 1,
    "min_p": 0.1,
    "logit_bias": {"5": 1},
    "cache_salt": "ours",
    "session_id": "s",
    "response_format": {"type": "json_object"},
    "structured_outputs": {"regex": "a+"},
    "guided_json": {"type": "array"},
    "guided_regex": "b+",
    "guided_choice": ["a", "b"],
    "guided_grammar": 'start: "a"',
    "max_thinking_tokens": 4,
    "thinking_token_budget": 5,
    "nvext": {"max_thinking_tokens": 6},
    "include_stop_str_in_output": True,
    "skip_special_tokens": False,
    "bad_words": ["cat"],
    "return_token_ids": True,
}
CHAT_VALUES: dict[str, Any] = {
    **BOTH_VALUES,
    "max_completion_tokens": 6,
    "logprobs": True,
    "top_logprobs": 2,
    "tools": [TOOL],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "functions": [TOOL["function"]],
    "function_call": {"name": "now"},
    "prediction": {"type": "content", "content": "Let me see."},
    "separate_reasoning": False,
    "include_reasoning": False,
    "reasoning_effort": "none",
    "chat_template_kwargs": {"enable_thinking": False},
    "add_generation_prompt": False,
    "continue_final_message": True,
    "truncate_prompt_tokens": 8,
}
COMPLETION_VALUES: dict[str, Any] = {
    **BOTH_VALUES,
    "logprobs": 2,
    "echo": True,
    "add_special_tokens": False,
    "truncate_prompt_tokens": 2,
}
# What needs another field beside it to mean something.
BESIDE = {
    "stream_options": ("stream",),
    "top_logprobs": ("logprobs", "include"),
    "tool_choice": ("tools",),
    "parallel_tool_calls": ("tools",),
    "function_call": ("functions",),
}


def beside(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return what goes with the field `name`, of a door's `values`."""
    return {other: values[other] for other in BESIDE.get(name, ()) if other in values}


class SayingUpstream:
    """Says the same to everybody, and keeps what it was asked."""

    def __init__(self, said: str = SAID) -> None:
        self.said = said
        self.asked: list[Fields] = []
        self.num_left = 0
        self.pause_s = 0.0
        self.reason = "stop"
        self.fails_after: int | None = None  # so many tokens

    async def generate(self, inputs: Fields) -> AsyncIterator[Fields]:
        self.asked.append(inputs)
        ids = FILES.tokenizer.encode(self.said, add_special_tokens=False)  # type: ignore[union-attr]
        is_whole = False
        text_of = FILES.tokenizer.decoder()  # type: ignore[union-attr]
        try:
            for count, token in enumerate(ids, 1):
                if count - 1 == self.fails_after:
                    raise UpstreamError("engine_failed", "told to fail")
                fields: Fields = {"text_output": text_of(token), "num_input_tokens": 3}
                if inputs.get("return_prompt_log_probs") and count == 1:
                    fields |= {"prompt_ids": [5, 6, 7], "prompt_log_probs": [-1.0, -2.0]}
                    fields |= {"prompt_log_prob_ranks": [1, 2]}
                    fields |= {"top_prompt_log_prob_ids": [[6, 5], [7, 5]]}
                    fields |= {"top_prompt_log_probs": [[-1.0, -3.0], [-2.0, -4.0]]}
                if inputs.get("return_output_ids"):
                    fields["output_ids"] = [token]
                if inputs.get("return_log_probs"):
                    fields["output_log_probs"] = [-0.5]
                if inputs.get("num_top_log_probs"):
                    fields |= {"top_log_prob_ids": [[token, 5]], "top_log_probs": [[-0.5, -1.5]]}
                if inputs.get("return_progress"):
                    fields["num_output_tokens"] = count
                yield fields
                await asyncio.sleep(self.pause_s)
            is_whole = True
            yield {
                "final": True,
                "finish_reason": self.reason,
                "num_input_tokens": 3,
                "num_output_tokens": len(ids),
            }
        finally:
            self.num_left += not is_whole

    async def is_ready(self) -> bool:
        return True

    async def close(self) -> None:
        pass


class Client:
    """Posts to an application in this thread's own loop, several times as fast as TestClient."""

    def __init__(self, app: Any, runner: asyncio.Runner) -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
        self._runner = runner

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self._runner.run(self._client.post(path, **body))

    def post_text(self, path: str, text: str) -> httpx.Response:
        return self.post(path, content=text, headers={"content-type": "application/json"})


def ask(client: Client, upstream: SayingUpstream, body: Any) -> tuple[int, Any, Any]:
    """Return the status, what reached the engine, and the answer without what is random."""
    upstream.asked.clear()
    path = "chat/completions" if "messages" in body else "completions"
    answer = client.post(f"/v1/{path}", json=body)
    text = answer.text
    if answer.is_success:
        parts = [json.loads(p) for p in text.split("data: ") if p.strip().startswith("{")]
        for part in parts:
            del part["id"], part["created"]
            for choice in part["choices"]:
                for message in (choice.get("message") or {}, choice.get("delta") or {}):
                    for call in message.get("tool_calls") or []:
                        call.pop("id", None)
        text = json.dumps(parts)
    return answer.status_code, list(upstream.asked), text


def message(**fields: Any) -> dict[str, Any]:
    answer = {"role": "assistant", "content": "A", **fields}
    user = {"role": "user", "content": "Hi"}
    return {"model": "llm", "messages": [user, answer, user]}
