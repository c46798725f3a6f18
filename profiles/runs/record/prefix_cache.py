"""What a server's prefix cache did in a run: whether it held the prompts, from the start or later.

A run in which it had all the first prompts began where another had ended.
"""

import math
from collections.abc import Sequence
from enum import StrEnum

from nemotrt.profiles.runs.record.result import RequestRecord, Warmth


class CacheUse(StrEnum):
    """What the prefix cache held of a run's prompts."""

    NOT_TOLD = "not told"
    COLD = "cold"  # not a notable part of any prompt
    WARM = "warm"  # prompts of this run, when their beginnings came again
    STARTED_WARM = "warm from the start"


def cache_use(requests: Sequence[RequestRecord]) -> CacheUse:
    """Return what the cache of a run's server held, by what it told of each prompt."""
    told = [request for request in requests if request.warmth is not Warmth.NOT_TOLD]
    if not told:
        return CacheUse.NOT_TOLD
    # of those that were under way at once, one alone need have computed what they share
    answered_s = min((r.arrivals_s[0] for r in told if r.arrivals_s), default=math.inf)
    first = [r for r in told if r.sent_s is not None and r.sent_s < answered_s]
    if first and all(request.warmth is Warmth.WARM for request in first):
        return CacheUse.STARTED_WARM
    is_warm = any(request.warmth is Warmth.WARM for request in told)
    return CacheUse.WARM if is_warm else CacheUse.COLD


def cached_share(requests: Sequence[RequestRecord]) -> float | None:
    """Return the share of the prompts' tokens that was cached; None where none was told."""
    told = [(r.cached_tokens, r.isl) for r in requests if r.cached_tokens is not None and r.isl]
    total = sum(isl for _, isl in told)
    return sum(cached for cached, _ in told) / total if total else None
