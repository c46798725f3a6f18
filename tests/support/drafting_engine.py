"""A HashEngine that takes drafts, and whose texts come back to what they said before."""

from collections.abc import Mapping, Sequence

import numpy as np

from nemotrt.engines.runtime.engine import Feed, Limits
from support.hash_engine import HashEngine, hash_of


class DraftingEngine(HashEngine):
    """Each step proves its state, and so does what is accepted.

    The logits follow from the last two tokens, so texts repeat; `noise` is what the whole text adds
    to them. `num_steps` counts the steps.
    """

    def __init__(
        self, limits: Limits, vocab_size: int = 50, *, max_draft: int = 0, noise: float = 0.0
    ) -> None:
        super().__init__(limits, vocab_size)
        self.max_draft = min(max_draft, limits.chunk_tokens)
        self.num_steps = 0
        self._noise = noise
        self._drafts: dict[int, list[int]] = {}

    def step(self, feeds: Sequence[Feed]) -> np.ndarray:
        self.check(feeds)
        self.num_steps += 1
        rows = []
        for feed in feeds:
            held = self.cache.array[self.row_of(feed), 0, : self.held[feed.slot], 0] - 1
            text = [*held.tolist(), *feed.tokens]
            ends = range(len(text) - feed.num_logits + 1, len(text) + 1)
            rows += [self._logits(text[:end]) for end in ends]
            self._drafts.pop(feed.slot, None)
            if feed.is_draft:
                self._drafts[feed.slot] = list(feed.tokens)
        if sure := [feed for feed in feeds if not feed.is_draft]:
            super().step(sure)
        return np.stack(rows)

    def accept(self, counts: Mapping[int, int]) -> None:
        for slot, count in counts.items():
            tokens = self._drafts.pop(slot)
            assert 1 <= count <= len(tokens)
            super().step([Feed(slot, tokens[:count])])

    def release(self, slot: int) -> None:
        self._drafts.pop(slot, None)
        super().release(slot)

    def _logits(self, text: list[int]) -> np.ndarray:
        near = np.random.default_rng(hash_of(text[-2:])).normal(size=self.vocab_size)
        all_of_it = np.random.default_rng(hash_of(text)).normal(size=self.vocab_size)
        return (3 * near + self._noise * all_of_it).astype(np.float32)
