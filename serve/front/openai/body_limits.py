"""How much one request may hold, checked before a prompt is made of it."""

from collections.abc import Callable
from functools import partial
from typing import Any

from nemotrt.engines.runtime.engine import Limits
from nemotrt.errors import ConfigError
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.schema.requests import ChatRequest, CompletionRequest, Sampling
from nemotrt.serve.requests.limits import (
    MAX_CHOICES,
    MAX_PARTS,
    MAX_PROMPT_IDS,
    MAX_PROMPTS,
    check_count,
    check_room,
    check_stops,
    check_text,
    refusal_code,
)


def check_limits(body: Sampling, limits: Limits) -> None:
    """Raise ApiError, which names the field, where a body is beyond a limit."""
    _check("stop", check_stops, "stop", body.stop_words)
    _check("bad_words", check_stops, "bad_words", body.bad_words)
    if isinstance(body, ChatRequest):
        _check_chat(body, limits)
    elif isinstance(body, CompletionRequest):
        _check_completion(body, limits)


def _check_chat(body: ChatRequest, limits: Limits) -> None:
    """Count the messages' parts and characters."""
    num_parts = num_characters = 0
    for message in body.messages:
        calls = message.calls
        content = message.content or ""
        texts = [call.function.arguments or "" for call in calls]
        texts += [] if isinstance(content, str) else [part.text for part in content]
        num_parts += len(texts)
        num_parts += len(message.thinking_blocks or message.reasoning_details or ())
        texts += [message.trace or ""]
        num_characters += sum(map(len, texts))
        num_characters += len(content) if isinstance(content, str) else 0
    name = "messages"
    _check(name, check_count, name, num_parts, MAX_PARTS, "content parts and tool calls")
    _check(name, check_text, name, num_characters, limits.max_seq_len)


def _check_completion(body: CompletionRequest, limits: Limits) -> None:
    """Count the prompts, their ids and characters, and the choices."""
    name, prompts = "prompt", body.prompts
    if not prompts:
        raise ApiError(400, f"prompt must have 1 to {MAX_PROMPTS} entries.", param=name)
    _check(name, check_count, name, len(prompts), MAX_PROMPTS)
    _check(name, check_count, "prompt times n", len(prompts) * body.n, MAX_CHOICES)
    ids = [prompt for prompt in prompts if not isinstance(prompt, str)]
    most = max(MAX_PROMPT_IDS, limits.max_seq_len)
    _check(name, check_count, name, sum(map(len, ids)), most, "ids in all")
    for prompt in prompts:
        if isinstance(prompt, str):
            _check(name, check_text, name, len(prompt), limits.max_seq_len)
        else:
            min_output = int(body.max_tokens != 0)
            _check(
                name, partial(check_room, min_output=min_output), len(prompt), limits.max_seq_len
            )


def _check(field: str, check: Callable[..., Any], *arguments: Any) -> None:
    """Run a check; what it raises becomes the API's error about `field`."""
    try:
        check(*arguments)
    except ConfigError as error:
        raise ApiError(400, error.message, code=refusal_code(error), param=field) from error
