"""An engine whose every step proves its state: a hash of all tokens, and a cache of the tokens.

Its next token follows from the hash, so from every token before it, in their order.
"""

from collections.abc import Sequence

import numpy as np

from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.state.kept_slots import KeptSlots
from nemotrt.engines.runtime.state.state_pool import StateBuffer, StatePool

PRIME = 1_000_003
FACTOR = 31


def hash_of(tokens: Sequence[int]) -> int:
    value = 1
    for token in tokens:
        value = (value * FACTOR + token + 1) % PRIME
    return value


def next_token(tokens: Sequence[int], vocab_size: int) -> int:
    return hash_of(tokens) % vocab_size


class HashEngine(KeptSlots):
    """The Engine and KeepsState protocols; `num_fed` counts the tokens of all steps."""

    def __init__(self, limits: Limits, vocab_size: int = 50, *, is_dense: bool = False) -> None:
        rows = limits.max_batch_size
        self.cache = StateBuffer.zeros(rows, (2, limits.max_seq_len, 1), 1, np.dtype(np.int64))
        self.hash = StateBuffer.zeros(rows, (1,), None, np.dtype(np.int64))
        self.num_fed = 0
        self._is_dense = is_dense
        buffers = [self.cache] if is_dense else [self.cache, self.hash]
        super().__init__(limits, vocab_size, StatePool(buffers))

    def step(self, feeds: Sequence[Feed]) -> np.ndarray:
        self.check(feeds)
        rows = []
        for feed in feeds:
            row, held = self.row_of(feed), self.held[feed.slot]
            cached = self.cache.array[row, :, :, 0] - 1  # 0 is what nobody wrote
            assert (cached[0] == cached[1]).all()
            assert (cached[0, held:] == -1).all(), "another sequence's tokens"
            assert (cached[0, :held] >= 0).all(), "a token's cache is missing"
            before = hash_of(cached[0, :held].tolist())
            if not self._is_dense:
                assert self.hash.array[row, 0] == (before if held else 0), "not this text's state"
            for token in feed.tokens:
                before = (before * FACTOR + token + 1) % PRIME
                logits = np.zeros(self.vocab_size, np.float32)
                logits[before % self.vocab_size] = 1 + before / PRIME
                rows.append(logits)
            del rows[len(rows) - len(feed.tokens) : len(rows) - feed.num_logits]
            self.cache.array[row, :, held : held + len(feed.tokens), 0] = np.array(feed.tokens) + 1
            self.hash.array[row, 0] = before
            self.num_fed += len(feed.tokens)
        self.advance(feeds)
        return np.stack(rows)

    def close(self) -> None:
        pass
