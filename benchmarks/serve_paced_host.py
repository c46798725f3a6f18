"""An engine process whose steps take a fixed time ($PACED_STEP_MS) and cost no CPU."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nemotrt.engines import opening
from nemotrt.engines.engine import Feed, Limits
from nemotrt.engines.slot_table import SlotTable
from nemotrt.serve import engine_host

TOKEN = 300  # any token that is a whole word


class PacedEngine:
    """Says the same token again and again."""

    def __init__(self, limits: Limits, vocab_size: int) -> None:
        """Take the limits of a real engine."""
        self.limits = limits
        self.vocab_size = vocab_size
        self._slots = SlotTable(limits.max_batch_size)
        self._step_s = float(os.environ.get("PACED_STEP_MS", "5")) / 1000
        self._logits = np.zeros((limits.max_batch_size, vocab_size), np.float32)
        self._logits[:, TOKEN] = 1
        self._due_s = 0.0

    def allocate(self) -> int:
        """Return a free slot."""
        return self._slots.allocate()

    def release(self, slot: int) -> None:
        """Free a slot."""
        self._slots.release(slot)

    def held_tokens(self, slot: int) -> int:
        """Nothing is held."""
        return 0

    def step(self, feeds: Sequence[Feed]) -> Any:
        """Return when a step is due, at a steady pace for as long as the caller keeps it."""
        now_s = time.monotonic()
        time.sleep(max(0.0, self._due_s - now_s))
        self._due_s = max(self._due_s, now_s) + self._step_s
        num_rows = sum(feed.num_logits for feed in feeds)
        return np.broadcast_to(self._logits[0], (num_rows, self.vocab_size))

    def close(self) -> None:
        """Nothing to free."""


def open_paced(folder: Path, **options: Any) -> opening.OpenEngine:
    """Return the engine directory's tokenizer over a paced engine."""
    opened = opening.open_engine(folder, verify=False, num_threads=1)
    engine = PacedEngine(opened.manifest.engine_limits, opened.engine.vocab_size)
    return replace(opened, engine=engine)


if __name__ == "__main__":
    engine_host.open_engine = open_paced
    sys.exit(engine_host.main())
