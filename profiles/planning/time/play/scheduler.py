"""The scheduler of an engine played out, call by call: who waits for whose prompt, and how long.

Users of a closed loop come again when they are answered, after their own and the server's way.
Answers of one length end within a few steps of each other, so the prompts that follow come together
too, and no formula of mean rates sees that. Where nothing changes from call to call, many are taken
at once, so a play has a few events for each request.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce

from nemotrt.profiles.planning.time.operators import Call, decode_call, prefill_call
from nemotrt.profiles.planning.time.play.requests import (
    Load,
    Played,
    Request,
    asks,
    rate_of,
    token_s_of,
)

# Requests of each user: all come at once, then as they are answered. Source: load generators send
# ten a user (InferenceMAX: `--num-prompts $((CONC * 10))`); with that many the first ones, which
# come together, weigh as in measured means.
NUM_ROUNDS = 10
# Events of a play; rounds that are left out repeat the last. A first round is always played.
MAX_EVENTS = 3000


@dataclass(order=True, slots=True)
class _Group:
    """Sequences of one length of answer whose first token came with one call."""

    last_step: int
    requests: list[Request] = field(compare=False)
    since: float = field(compare=False)


@dataclass(slots=True)
class _Play:
    """The engine at one moment."""

    load: Load
    step_s: Callable[[Call], float]
    # What a request's user sends next, and when; None: nothing.
    after: Callable[[Request, float], Request | None] = lambda request, now: None
    slots: int | None = None  # how many may run; None: a slot for each
    coming: list[Request] = field(default_factory=list)  # a heap by when they come
    waiting: deque[Request] = field(default_factory=deque)
    now: float = 0.0
    done: int = 0  # tokens of the first waiting prompt that are computed, if any are
    decoding: list[_Group] = field(default_factory=list)  # a heap by their last step
    num_decoding: int = 0
    context: float = 0.0  # tokens in the caches of those that decode
    step: int = 0  # decode steps so far
    answered: list[Request] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)

    def advance(self) -> None:
        """Take the next call, or as many as are alike."""
        self._arrive()
        pieces = self._pieces()
        if not pieces:
            self._decode(self._steps_alike())
            return
        request, new = pieces[0]
        begun, repeats = self._begun(request), 1
        if len(pieces) == 1 and begun + new < request.isl:  # it fills the call, and those after it
            repeats = max((request.isl - begun) // new, 1)
            if self.load.is_mixed and self.decoding:
                repeats = min(repeats, self.decoding[0].last_step - self.step)
        self.now += repeats * self.step_s(self._call(pieces, begun, repeats))
        if self.load.is_mixed:
            self._tick(repeats)
        self._first_tokens(pieces, begun, repeats)
        if self.load.is_mixed:
            self._finish()

    def _arrive(self) -> None:
        """Let those in who have come; an idle engine waits for the next."""
        if self.coming and not self.waiting and not self.decoding:
            self.now = max(self.now, self.coming[0].came_s)
        while self.coming and self.coming[0].came_s <= self.now:
            self.waiting.append(heapq.heappop(self.coming))

    def _steps_alike(self) -> int:
        """Return the steps until a sequence ends, or somebody comes."""
        steps = self.decoding[0].last_step - self.step
        if not self.coming:
            return steps
        step_s = self.step_s(self._decode_call(self.context / self.num_decoding))
        left_s = self.coming[0].came_s - self.now
        return steps if left_s > steps * step_s else max(math.ceil(left_s / step_s), 1)

    def _pieces(self) -> list[tuple[Request, int]]:
        """Return the prompts of the next call, and how many tokens of each it computes."""
        load, held = self.load, self.num_decoding
        budget = load.max_num_tokens - (held * load.num_checked if load.is_mixed else 0)
        free = len(self.waiting) if self.slots is None else self.slots - held
        if not self.waiting or free <= 0 or (budget <= 0 and held):
            return []
        budget = max(budget, 1)
        pieces: list[tuple[Request, int]] = []
        for request in self.waiting:
            begun = request.kept if pieces else self._begun(request)
            new = min(request.isl - begun, budget)
            # a whole prompt that no call has room for is split all the same
            if pieces and new < request.isl - begun and not load.splits_prompts:
                break
            pieces.append((request, new))
            budget, free = budget - new, free - 1
            if not (budget and free):
                break
        return pieces

    def _begun(self, request: Request) -> int:
        """Return the tokens of the first waiting prompt whose state is there."""
        return max(self.done, request.kept)

    def _call(self, pieces: Sequence[tuple[Request, int]], begun: int, repeats: int) -> Call:
        """Return the middle one of `repeats` calls with these prompts."""
        _, new = pieces[0]
        start = begun + (repeats - 1) * new / 2
        call = prefill_call(1, start, new)
        if len(pieces) > 1:
            more = [prefill_call(1, one.kept, length) for one, length in pieces[1:]]
            call = reduce(together, more, call)
        if not (self.load.is_mixed and self.num_decoding):
            return call
        middle = self.context / self.num_decoding + self._grown(repeats / 2)
        return together(call, self._decode_call(middle))

    def _decode_call(self, context: float) -> Call:
        return decode_call(self.num_decoding, context, self.load.num_checked)

    def _grown(self, num_steps: float) -> float:
        """Return the tokens that steps add to a sequence."""
        return num_steps * self.load.tokens_per_step

    def _first_tokens(self, pieces: Sequence[tuple[Request, int]], begun: int, calls: int) -> None:
        """Hand out the first tokens of the prompts that ended, and remember how far the last is."""
        ended: dict[int, list[Request]] = {}
        self.done = 0
        first = pieces[0][0]
        for request, new in pieces:
            reached = (begun if request is first else request.kept) + calls * new
            if reached < request.isl:
                self.done = reached
                break
            self.waiting.popleft()
            request.first_token_s = round(self.now - request.came_s, 9)  # sums of many calls
            self.first_token_s.append(request.first_token_s)
            ended.setdefault(request.osl, []).append(request)
        for osl, requests in ended.items():
            if osl == 1:
                self._answer(requests, self.now)
                continue
            steps = self.load.num_steps(osl)
            heapq.heappush(self.decoding, _Group(self.step + steps, requests, self.now))
            self.num_decoding += len(requests)
            self.context += sum(request.isl for request in requests)

    def _decode(self, num_steps: int) -> None:
        """Take steps without a prompt."""
        middle = self.context / self.num_decoding + self._grown(num_steps / 2)
        self.now += num_steps * self.step_s(self._decode_call(middle))
        self._tick(num_steps)
        self._finish()

    def _tick(self, num_steps: int) -> None:
        self.step += num_steps
        self.context += self._grown(num_steps) * self.num_decoding

    def _finish(self) -> None:
        """Let go of the sequences whose last token is there; their users come again."""
        while self.decoding and self.decoding[0].last_step <= self.step:
            group = heapq.heappop(self.decoding)
            requests = group.requests
            self.num_decoding -= len(requests)
            steps = self.load.num_steps(requests[0].osl)
            self.context -= sum(r.isl + self._grown(steps) for r in requests)
            self._answer(requests, group.since)

    def _answer(self, requests: Sequence[Request], since: float) -> None:
        for request in requests:
            request.answer_s = self.now - since
            self.answered.append(request)
            if (again := self.after(request, self.now)) is not None:
                heapq.heappush(self.coming, again)


def play(load: Load, step_s: Callable[[Call], float], turn_s: float = 0.0) -> Played:
    """Return what users get of an engine whose calls take `step_s` seconds.

    An answered user is back after `turn_s` outside of the engine.
    """
    users, asked = load.num_users, asks(load, NUM_ROUNDS * load.num_users)

    def after(request: Request, now: float) -> Request:
        return Request(now + turn_s, request.user, *next(asked))

    state = _Play(load, step_s, after)
    state.waiting.extend(Request(0.0, user, *next(asked)) for user in range(users))
    count, since, num_events = 0, 0.0, 0  # of the first round
    while len(state.answered) < NUM_ROUNDS * users:
        state.advance()
        num_events += 1
        if not count and len(state.answered) >= users:
            count, since = len(state.answered), state.now
        if num_events > MAX_EVENTS and count:
            break
    seen, answered = state.first_token_s, state.answered
    rate = rate_of(answered[count:], state.now - since)
    return Played(
        tuple(sorted(_rounds(seen, users))), max(seen[:users]), token_s_of(answered), rate
    )


def play_arrivals(
    load: Load, step_s: Callable[[Call], float], arrivals_s: Sequence[float], slots: int
) -> Played:
    """Return what requests get that come at these seconds, whether or not others are answered.

    At most `slots` run at a time; the others wait in order. The first fifth of them, which find an
    empty engine, are not counted.
    """
    asked = asks(load, len(arrivals_s))
    state = _Play(load, step_s, slots=slots)
    state.coming = [Request(came_s, user, *next(asked)) for user, came_s in enumerate(arrivals_s)]
    heapq.heapify(state.coming)
    while len(state.answered) < len(arrivals_s):
        state.advance()
    seen, answered = state.first_token_s[len(arrivals_s) // 5 :], state.answered
    rate = rate_of(answered, state.now)
    return Played(tuple(sorted(seen)), max(seen), token_s_of(answered), rate)


def _rounds(seen: list[float], users: int) -> list[float]:
    """Return the times of all rounds, of which the last that was played stands for the rest."""
    seen = seen[: NUM_ROUNDS * users]
    last = seen[-users:]
    missing = NUM_ROUNDS * users - len(seen)
    whole, rest = divmod(missing, users)
    return seen + whole * last + last[:rest]


def together(one: Call, other: Call) -> Call:
    """Return one call with the work of both."""
    return Call(
        one.num_tokens + other.num_tokens,
        one.num_sequences + other.num_sequences,
        one.num_cached_tokens + other.num_cached_tokens,
        one.num_pairs + other.num_pairs,
        is_decode=False,
    )
