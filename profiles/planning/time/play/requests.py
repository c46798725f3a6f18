"""The requests of a play: their lengths, when they come, and what they got."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

# Lengths are drawn from a fixed seed: two plays differ in nothing but what they are asked.
SEED = 1


@dataclass(frozen=True, slots=True)
class Load:
    """What users ask of an engine that has a slot for each of them.

    Lengths are drawn evenly between `shortest_share` of `isl` and `osl`, and these; or around them.
    """

    isl: int
    osl: int
    num_users: int
    max_num_tokens: int
    # Whether prompts share their calls with tokens of others; else these wait for all prompts.
    is_mixed: bool
    shortest_share: float = 1.0
    # Standard deviations of both, as shares of `isl` and `osl`, which are then means.
    spreads: tuple[float, float] = (0.0, 0.0)
    num_checked: int = 1  # tokens of a sequence in a decode step, its guesses among them
    tokens_per_step: float = 1.0  # that one gives a sequence
    # Whether a call may take a part of a prompt; else one that does not fit waits for the next.
    splits_prompts: bool = True
    kept_tokens: int = 0  # first tokens of a prompt whose state is there
    kept_share: float = 1.0  # of the requests; those that come first find none

    def num_steps(self, osl: int) -> int:
        """Return the decode steps of an answer, whose first token comes with its prompt."""
        return math.ceil((osl - 1) / self.tokens_per_step)


@dataclass(order=True, slots=True)
class Request:
    """One request of `isl` prompt tokens, and what it got."""

    came_s: float
    user: int
    isl: int
    osl: int
    kept: int = 0  # first tokens of the prompt whose state is there
    first_token_s: float = 0.0  # after it came
    answer_s: float = 0.0  # from its first to its last token


@dataclass(frozen=True, slots=True)
class Played:
    """What the requests of a play got, in seconds."""

    first_token_s: tuple[float, ...]  # of NUM_ROUNDS requests per user, sorted
    burst_s: float  # of the last of those that came at once
    token_s: float  # mean of a request's time per output token
    tokens_per_s: float  # after the first round; 0 if no more was played

    @property
    def mean_s(self) -> float:
        """The mean time to the first token."""
        return sum(self.first_token_s) / len(self.first_token_s)

    def percentile_s(self, percent: int) -> float:
        """Return the time within which `percent` of the first tokens came."""
        return self.first_token_s[-(-len(self.first_token_s) * percent // 100) - 1]


def lengths(load: Load) -> Iterator[tuple[int, int]]:
    """Yield the lengths of one request after the other, without end."""
    if load.shortest_share == 1 and not any(load.spreads):
        yield from repeat((load.isl, load.osl))
    drawn = random.Random(SEED)

    def around(mean: int, spread: float) -> int:
        return max(round(drawn.gauss(mean, spread * mean)), 1)

    while any(load.spreads):
        yield around(load.isl, load.spreads[0]), around(load.osl, load.spreads[1])

    def one(longest: int) -> int:
        return drawn.randint(max(int(load.shortest_share * longest), 1), longest)

    while True:
        yield one(load.isl), one(load.osl)


def asks(load: Load, num_requests: int) -> Iterator[tuple[int, int, int]]:
    """Yield the lengths of one request after the other, and its kept tokens, without end.

    Of the first `num_requests` those that find nothing kept come first.
    """
    num_cold = round((1 - load.kept_share) * num_requests) if load.kept_tokens else 0
    for number, (isl, osl) in enumerate(lengths(load)):
        # the last token of a prompt is computed in any case: it gives the first one of the answer
        kept = min(load.kept_tokens, isl - 1) if number >= num_cold else 0
        yield isl, osl, kept


def rate_of(answered: Sequence[Request], span_s: float) -> float:
    """Return the tokens per second of requests that were answered in a span; 0 without one."""
    return sum(request.osl for request in answered) / span_s if span_s > 0 else 0.0


def token_s_of(answered: Sequence[Request]) -> float:
    """Return the mean of the requests' times per output token after the first; 0 without any."""
    each = [request.answer_s / (request.osl - 1) for request in answered if request.osl > 1]
    return sum(each) / len(each) if each else 0.0
