"""Samples of conversations and of what a prefix cache held."""

from collections.abc import Callable

from nemotrt.profiles.runs.metrics.metric import NotComputableError
from nemotrt.profiles.runs.metrics.request_metrics import ttft_ms
from nemotrt.profiles.runs.metrics.run_view import RunView
from nemotrt.profiles.runs.metrics.window_metrics import over_window
from nemotrt.profiles.runs.record.prefix_cache import cached_share
from nemotrt.profiles.runs.record.result import Warmth

UNTOLD = "the target does not tell how many tokens of a prompt it had cached."


def sessions_per_s(run: RunView) -> list[float]:
    """Return the ended conversations a second: those whose last turn ended in the window."""
    ends: dict[int, float] = {}
    failed: set[int] = set()
    for request in run.requests:
        if (place := request.place) is None:
            raise NotComputableError("the load has no conversations (--preset agents).")
        if request.error:
            failed.add(place.conversation)
        elif place.turn == place.num_turns and request.is_complete:
            ends[place.conversation] = request.arrivals_s[-1]
    whole = (at_s for number, at_s in ends.items() if number not in failed)
    return over_window(run, sum(map(run.is_inside, whole)))


def ttft_ms_of(warmth: Warmth) -> Callable[[RunView], list[float]]:
    """Return a function that takes the time to the first token of each request of this kind."""

    def samples(run: RunView) -> list[float]:
        found = [ttft_ms(request) for request in run.answered if request.warmth is warmth]
        if not found:
            is_told = any(request.cached_tokens is not None for request in run.answered)
            raise NotComputableError(f"no request was {warmth}." if is_told else UNTOLD)
        return found

    return samples


def cached_tokens(run: RunView) -> list[float]:
    """Return the cached tokens of each measured request that tells."""
    found = [float(r.cached_tokens) for r in run.measured if r.cached_tokens is not None]
    if not found:
        raise NotComputableError(UNTOLD)
    return found


def share(run: RunView) -> list[float]:
    """Return the share of the measured prompts that was cached."""
    found = cached_share(run.measured)
    if found is None:
        raise NotComputableError(UNTOLD)
    return [found]
