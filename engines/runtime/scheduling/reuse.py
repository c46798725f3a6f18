"""What a scheduler does with kept states: where a sequence begins, and what it leaves."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nemotrt.engines.runtime.engine import KeepsState
from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.scheduling.prompt_scores import PromptScores
from nemotrt.engines.runtime.state.kept.keep_points import MIN_GAIN, keep_points
from nemotrt.engines.runtime.state.kept.prefix_cache import PrefixCache
from nemotrt.engines.runtime.state.kept.prefix_tree import Ids, KeptScores, num_common
from nemotrt.errors import EnvironmentUnfitError

log = logging.getLogger("nemotrt.engine")


@dataclass(frozen=True, slots=True)
class KeepRules:
    """How a family writes chats: ids that begin a message, and whether answers return as written.

    Where they do not, the end of a chat's answer is no prefix of its next turn.
    """

    markers: frozenset[int] = frozenset()
    answers_return: bool = True


@dataclass(slots=True)
class Keeping:
    """A sequence's part: its prompt, where it is still to be kept, how much of it was found."""

    request: Request
    slot: int
    ids: Ids
    points: list[int]
    scores: PromptScores
    num_found: int
    last_kept: int = 0


class Reuse:
    """Over one engine and its cache; not thread-safe."""

    def __init__(self, engine: KeepsState, cache: PrefixCache, rules: KeepRules) -> None:
        """Take the engine whose slots are saved and restored."""
        self.cache = cache
        self._engine = engine
        self._rules = rules
        self._ids: dict[str, Ids] = {}  # of requests that wait
        self._prefill = [0, 0.0]  # tokens that were computed, seconds that they took

    def must_wait(self, request: Request, others: Iterable[Keeping]) -> bool:
        """Whether one of the `others` computes a prefix of a request, which is kept for it then.

        Each of the others has fed as many tokens as its slot holds, and has more of its prompt to
        feed.
        """
        ids, best, runner = self._ids_of(request), 0, None
        for other in others:
            shared = self._shared(request, ids, other)
            if shared > best and self._engine.held_tokens(other.slot) <= shared:
                best, runner = shared, other
        if runner is None or not self.cache.can_hold(best):
            return False
        known = self.cache.num_known(request.pool, ids, request.params.prompt_logprobs)
        if best - known < MIN_GAIN:
            return False
        if self._engine.held_tokens(runner.slot) == best:
            self._keep(runner, best)
            return False
        runner.points = sorted({*runner.points, best})
        return True

    def _shared(self, request: Request, ids: Ids, other: Keeping) -> int:
        """Return how many tokens' state one sequence could leave for a request."""
        num_top = request.params.prompt_logprobs
        if other.request.pool != request.pool:
            return 0
        shared = min(num_common(ids, other.ids), len(ids) - 1)
        if num_top is None:
            return shared
        # the token behind the state has its score from the sequence that left it
        return shared - 1 if num_top == other.request.params.prompt_logprobs else 0

    def begin(self, request: Request, slot: int, scores: PromptScores) -> Keeping:
        """Give an empty slot the longest kept state of a request's prompt."""
        ids, num_top = self._ids_of(request), request.params.prompt_logprobs
        self.forget(request.request_id)
        found = self.cache.find(request.pool, ids, num_top)
        if found.num_tokens:
            self._engine.restore(slot, found.fixed, found.caches)
            scores.begin(found.scores)
        fork = min(found.matched, len(ids) - 1) - (num_top is not None)
        forks = [fork] if fork - found.num_tokens >= MIN_GAIN else []  # seen twice
        points = keep_points(request.prompt, self._rules.markers, found.num_tokens, forks)
        stats, (tokens, seconds) = self.cache.stats, self._prefill
        stats.prompt_tokens += len(ids)
        stats.hit_tokens += found.num_tokens
        stats.saved_s += found.num_tokens * seconds / max(tokens, 1)
        return Keeping(request, slot, ids, points, scores, found.num_tokens, found.num_tokens)

    def fed(self, keeping: Keeping, num_fed: int) -> None:
        """Keep the state of a slot that holds so many tokens of its prompt, if that is a point."""
        while keeping.points and keeping.points[0] <= num_fed:
            if keeping.points.pop(0) == num_fed:
                self._keep(keeping, num_fed)

    def _keep(self, keeping: Keeping, num_tokens: int) -> None:
        scores, num_top = None, keeping.request.params.prompt_logprobs
        if num_top is not None and len(tokens := keeping.scores.first(num_tokens + 1)) > num_tokens:
            scores = KeptScores(num_top, tokens)
        self._store(keeping, keeping.ids[:num_tokens], scores)

    def _store(self, keeping: Keeping, ids: Ids, scores: KeptScores | None = None) -> None:
        pool, slot = keeping.request.pool, keeping.slot
        try:
            self.cache.keep(pool, ids, lambda start: self._engine.save(slot, start), scores)
        except EnvironmentUnfitError as error:
            self.ran_out(error)
        keeping.last_kept = len(ids)

    def ran_out(self, error: EnvironmentUnfitError) -> None:
        """Go on with what is kept: the host has no memory for more."""
        self.cache.shrink()
        log.warning("no more than %d bytes of states are kept: %s", self.cache.stats.bytes, error)

    def ended(self, keeping: Keeping, output: Sequence[int], *, is_sound: bool = True) -> None:
        """Keep what a sequence leaves, before its slot is free.

        Args:
            keeping: the sequence's.
            output: what followed its prompt.
            is_sound: its logits were numbers; else the states that it began with go.
        """
        if not is_sound:
            self.cache.forget(keeping.request.pool, keeping.ids)
            return
        held = self._engine.held_tokens(keeping.slot)
        prompt = keeping.request.prompt
        is_lost = not self._rules.answers_return and held > len(prompt)
        if is_lost and not self._rules.markers.isdisjoint(prompt):
            return  # the next turn writes the answer another way
        if held - keeping.last_kept >= MIN_GAIN:
            ids = np.array([*prompt, *output][:held], np.int32)
            self._store(keeping, ids)

    def bytes_of(self, slot: int) -> int:
        """Return what a slot's whole state costs on the host."""
        return self._engine.state_bytes.of(self._engine.held_tokens(slot))

    def took(self, num_tokens: int, seconds: float) -> None:
        """Note how long some prompt tokens took to compute."""
        self._prefill[0] += num_tokens
        self._prefill[1] += seconds

    def forget(self, request_id: str) -> None:
        """Drop what was noted of a request that waits no more."""
        self._ids.pop(request_id, None)

    def _ids_of(self, request: Request) -> Ids:
        """Return a request's prompt as an array, which is made once while it waits."""
        ids = self._ids.get(request.request_id)
        if ids is None:
            ids = self._ids[request.request_id] = np.array(request.prompt, np.int32)
        return ids
