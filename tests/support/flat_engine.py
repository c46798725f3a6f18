"""An engine without a model: every token as likely as any other, or as a test wants it."""

from collections.abc import Sequence

import numpy as np

from nemotrt.engines.runtime.engine import Feed, Limits
from support.stand_in import StandInEngine

PADDING = 64  # logits beyond the tokenizer's ids, and the highest of all


class FlatEngine(StandInEngine):
    """The Engine protocol; `favour` gives a token its logit."""

    def __init__(
        self, num_ids: int, favour: dict[int, float] | None = None, max_seq_len: int = 4096
    ) -> None:
        super().__init__(Limits(4, max_seq_len, chunk_tokens=64), num_ids + PADDING)
        self._logits = np.zeros(self.vocab_size, np.float32)
        self._logits[num_ids:] = 50
        for token, logit in (favour or {}).items():
            self._logits[token] = logit

    def step(self, feeds: Sequence[Feed]) -> np.ndarray:
        return np.tile(self._logits, (len(feeds), 1))
