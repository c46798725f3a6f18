"""An engine without a model: every token as likely as any other, or as a test wants it."""

from collections.abc import Sequence

import numpy as np

from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.state.slot_table import SlotTable

PADDING = 64  # logits beyond the tokenizer's ids, and the highest of all


class FlatEngine:
    """The Engine protocol; `favour` gives a token its logit."""

    def __init__(
        self, num_ids: int, favour: dict[int, float] | None = None, max_seq_len: int = 4096
    ) -> None:
        self.limits = Limits(max_batch_size=4, max_seq_len=max_seq_len, chunk_tokens=64)
        self.vocab_size = num_ids + PADDING
        self._slots = SlotTable(self.limits.max_batch_size)
        self._logits = np.zeros(self.vocab_size, np.float32)
        self._logits[num_ids:] = 50
        for token, logit in (favour or {}).items():
            self._logits[token] = logit

    def allocate(self) -> int:
        return self._slots.allocate()

    def release(self, slot: int) -> None:
        self._slots.release(slot)

    def held_tokens(self, slot: int) -> int:
        return 0

    def step(self, feeds: Sequence[Feed]) -> np.ndarray:
        return np.tile(self._logits, (len(feeds), 1))

    def close(self) -> None:
        pass
