"""One prompt in, tokens out: the simplest use of a scheduler."""

from collections.abc import Iterator, Sequence
from typing import Any

from nemotrt.engines.runtime.request import PromptToken, Request, Update
from nemotrt.engines.runtime.request_scheduler import RequestScheduler
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.text.reasoning import Trace


def generate(
    scheduler: RequestScheduler,
    prompt: tuple[int, ...],
    params: SamplingParams,
    trace: Trace = Trace.CLOSED,
    adapter: str = "",
) -> Iterator[Update]:
    """Yield an Update a token until the request ends; the last one has a finish reason.

    `trace` is where the prompt leaves a reasoning trace, which stop strings don't end. `adapter` is
    one that the engine has.
    """
    scheduler.submit(Request("generate", prompt, params, trace=trace, adapter=adapter))
    while not scheduler.is_idle:
        yield from scheduler.step()


def collect(updates: list[Update], num_prompt_tokens: int) -> dict[str, Any]:
    """Return the JSON form of a finished request: tokens, text, finish_reason, usage."""
    tokens = [token for update in updates for token in update.tokens]
    prompt = [token for update in updates for token in update.prompt]
    return {
        "schema_version": 1,
        **({"prompt": [_prompt_token(token) for token in prompt]} if prompt else {}),
        "tokens": [
            {
                "id": token.id,
                "text": token.text,
                "logprob": token.logprob,
                "top_logprobs": _top(token.top_logprobs),
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


def _prompt_token(token: PromptToken) -> dict[str, Any]:
    """Return a prompt token; of the first one nothing but its id is known."""
    if token.score is None:
        return {"id": token.id}
    score = token.score
    top = _top(score.top_logprobs)
    return {"id": token.id, "logprob": score.logprob, "rank": score.rank, "top_logprobs": top}


def _top(pairs: Sequence[tuple[int, float]]) -> list[dict[str, Any]]:
    return [{"id": token, "logprob": logprob} for token, logprob in pairs]
