"""One prompt in, tokens out: the simplest use of a scheduler."""

from collections.abc import Iterator
from typing import Any

from nemotrt.engines.reasoning import Trace
from nemotrt.engines.request import Request, Update
from nemotrt.engines.request_scheduler import RequestScheduler
from nemotrt.engines.sampling import SamplingParams


def generate(
    scheduler: RequestScheduler,
    prompt: tuple[int, ...],
    params: SamplingParams,
    trace: Trace = Trace.CLOSED,
) -> Iterator[Update]:
    """Yield an Update a token until the request ends; the last one has a finish reason.

    `trace` is where the prompt leaves a reasoning trace, which stop strings don't end.
    """
    scheduler.submit(Request("generate", prompt, params, trace=trace))
    while not scheduler.is_idle:
        yield from scheduler.step()


def collect(updates: list[Update], num_prompt_tokens: int) -> dict[str, Any]:
    """Return the JSON form of a finished request: tokens, text, finish_reason, usage."""
    tokens = [token for update in updates for token in update.tokens]
    return {
        "schema_version": 1,
        "tokens": [
            {
                "id": token.id,
                "text": token.text,
                "logprob": token.logprob,
                "top_logprobs": [{"id": i, "logprob": p} for i, p in token.top_logprobs],
            }
            for token in tokens
        ],
        "text": "".join(update.text for update in updates),
        "finish_reason": updates[-1].finish_reason,
        "usage": {
            "prompt_tokens": num_prompt_tokens,
            "completion_tokens": len(tokens),
            "total_tokens": num_prompt_tokens + len(tokens),
        },
    }
