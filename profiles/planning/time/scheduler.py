"""The scheduler of an engine played out, call by call: who waits for whose prompt, and how long.

Users of a closed loop come again when they are answered. Answers of one length end together, so
the prompts that follow come together too, and no formula of mean rates sees that. Where nothing
changes from call to call, many are taken at once, so a play has a few events a request.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nemotrt.profiles.planning.time.operators import Call, decode_call, prefill_call

# Requests of each user: all come at once, then as they are answered. Source: load generators send
# about ten a user; with that many the first ones, which come together, weigh as in measured means.
NUM_ROUNDS = 10
# Rounds that are played; those after them repeat the last.
NUM_PLAYED = 3
MAX_EVENTS = 5000


@dataclass(frozen=True, slots=True)
class Load:
    """What users ask of an engine that has a slot for each of them."""

    isl: int
    osl: int
    num_users: int
    max_num_tokens: int
    # Whether prompts share their calls with tokens of others; else these wait for all prompts.
    is_mixed: bool


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


@dataclass(slots=True)
class _Group:
    """Sequences whose first token came with one call."""

    count: int
    last_step: int
    since: float


@dataclass(slots=True)
class _Play:
    """The engine at one moment."""

    load: Load
    step_s: Callable[[Call], float]
    waiting: deque[float]  # when each came
    now: float = 0.0
    done: int = 0  # tokens of the first waiting prompt that are computed
    decoding: deque[_Group] = field(default_factory=deque)
    num_decoding: int = 0
    context: float = 0.0  # tokens in the caches of those that decode
    step: int = 0  # decode steps so far
    first_token_s: list[float] = field(default_factory=list)
    num_answered: int = 0
    answers_s: float = 0.0  # from the first to the last token, of all that were answered
    # Of an open loop: when requests come that nobody waits to send, and how many may run.
    arrivals: deque[float] = field(default_factory=deque)
    slots: int | None = None  # None: users of a closed loop have one each, and come again

    def advance(self) -> None:
        """Take the next call, or as many as are alike."""
        self._arrive()
        ends, new, rest = self._prompts()
        if not new:
            self._decode(self._steps_alike())
            return
        load, repeats = self.load, 1
        if not ends:  # one prompt fills the call, and those after it
            repeats = max((load.isl - self.done) // new, 1)
            if load.is_mixed and self.decoding:
                repeats = min(repeats, self.decoding[0].last_step - self.step)
            rest = self.done + repeats * new
        self.now += repeats * self.step_s(self._call(ends, new, repeats))
        self.done = rest
        if load.is_mixed:
            self._tick(repeats)
        if not ends and rest == load.isl:
            ends, self.done = 1, 0
        self._first_tokens(ends)
        if load.is_mixed:
            self._finish()

    def _arrive(self) -> None:
        """Let those in who have come; an idle engine waits for the next."""
        if self.arrivals and not self.waiting and not self.decoding:
            self.now = max(self.now, self.arrivals[0])
        while self.arrivals and self.arrivals[0] <= self.now:
            self.waiting.append(self.arrivals.popleft())

    def _steps_alike(self) -> int:
        """Return the steps until a sequence ends, or somebody comes."""
        steps = self.decoding[0].last_step - self.step
        if not self.arrivals:
            return steps
        step_s = self.step_s(decode_call(self.num_decoding, self.context / self.num_decoding))
        return min(steps, max(math.ceil((self.arrivals[0] - self.now) / step_s), 1))

    def _prompts(self) -> tuple[int, int, int]:
        """Return how many prompts the next call ends, its tokens, and those of one it begins."""
        load, held, num_waiting = self.load, self.num_decoding, len(self.waiting)
        if self.slots is not None:
            num_waiting = min(num_waiting, self.slots - held)
        budget = load.max_num_tokens - (held if load.is_mixed else 0)
        if num_waiting <= 0 or (budget <= 0 and held):
            return 0, 0, 0
        budget, left = max(budget, 1), load.isl - self.done
        if budget < left:
            return 0, budget, self.done + budget
        ends = min(1 + (budget - left) // load.isl, num_waiting)
        new = left + (ends - 1) * load.isl
        rest = budget - new if ends < num_waiting else 0
        return ends, new + rest, rest

    def _call(self, ends: int, new: int, repeats: int) -> Call:
        """Return the middle one of `repeats` calls with `new` tokens of prompts in each."""
        if ends:
            prompts = prefill_call(ends, 0, new / ends)
        else:
            prompts = prefill_call(1, self.done + (repeats - 1) * new / 2, new)
        if not (self.load.is_mixed and self.num_decoding):
            return prompts
        middle = self.context / self.num_decoding + repeats / 2
        return together(prompts, decode_call(self.num_decoding, middle))

    def _first_tokens(self, count: int) -> None:
        """Hand out the first tokens of `count` prompts."""
        for _ in range(count):
            self.first_token_s.append(self.now - self.waiting.popleft())
        if self.load.osl == 1:
            self._answer(count)
        elif count:
            self.decoding.append(_Group(count, self.step + self.load.osl - 1, self.now))
            self.num_decoding += count
            self.context += count * self.load.isl

    def _decode(self, num_steps: int) -> None:
        """Take steps without a prompt."""
        middle = self.context / self.num_decoding + num_steps / 2
        self.now += num_steps * self.step_s(decode_call(self.num_decoding, middle))
        self._tick(num_steps)
        self._finish()

    def _tick(self, num_steps: int) -> None:
        self.step += num_steps
        self.context += num_steps * self.num_decoding

    def _finish(self) -> None:
        """Let go of the sequences whose last token is there; their users come again."""
        while self.decoding and self.decoding[0].last_step <= self.step:
            group = self.decoding.popleft()
            self.num_decoding -= group.count
            self.context -= group.count * (self.load.isl + self.load.osl - 1)
            self.answers_s += group.count * (self.now - group.since)
            self._answer(group.count)

    def _answer(self, count: int) -> None:
        self.num_answered += count
        if self.slots is None:
            self.waiting.extend([self.now] * count)


def play(load: Load, step_s: Callable[[Call], float]) -> Played:
    """Return what users get of an engine whose calls take `step_s` seconds."""
    users = load.num_users
    state = _Play(load, step_s, deque([0.0] * users))
    first_round: tuple[int, float] | None = None
    wanted, num_events = NUM_PLAYED * users, 0
    while state.num_answered < wanted:
        state.advance()
        num_events += 1
        if first_round is None and state.num_answered >= users:
            first_round = state.num_answered, state.now
        if num_events > MAX_EVENTS and state.num_answered >= users:
            break
    count, since = first_round or (state.num_answered, state.now)
    span = state.now - since
    rate = (state.num_answered - count) * load.osl / span if span else 0.0
    steps = (load.osl - 1) * state.num_answered
    token_s = state.answers_s / steps if steps else 0.0
    seen = state.first_token_s
    return Played(tuple(sorted(_rounds(seen, users))), max(seen[:users]), token_s, rate)


def play_arrivals(
    load: Load, step_s: Callable[[Call], float], arrivals_s: Sequence[float], slots: int
) -> Played:
    """Return what requests get that come at these seconds, whether or not others are answered.

    At most `slots` run at a time; the others wait in order. The first fifth of them, which find an
    empty engine, are not counted.
    """
    state = _Play(load, step_s, deque(), arrivals=deque(arrivals_s), slots=slots)
    while state.num_answered < len(arrivals_s):
        state.advance()
    seen = state.first_token_s[len(arrivals_s) // 5 :]
    steps = (load.osl - 1) * state.num_answered
    token_s = state.answers_s / steps if steps else 0.0
    rate = state.num_answered * load.osl / state.now
    return Played(tuple(sorted(seen)), max(seen), token_s, rate)


def _rounds(seen: list[float], users: int) -> list[float]:
    """Return the times of all rounds, of which the last that was played stands for the rest."""
    seen = seen[: NUM_PLAYED * users]
    last = seen[-users:]
    missing = NUM_ROUNDS - len(seen) // users
    return seen + missing * last


def together(one: Call, other: Call) -> Call:
    """Return one call with the work of both."""
    return Call(
        one.num_tokens + other.num_tokens,
        one.num_sequences + other.num_sequences,
        one.num_cached_tokens + other.num_cached_tokens,
        one.num_pairs + other.num_pairs,
        is_decode=False,
    )
