"""Our own engines: native and onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np

from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.backends.onnxruntime.engine import OnnxRuntimeEngine
from nemotrt.engines.runtime.engine import Feed, Limits

KINDS = {"native": NativeEngine, "onnxruntime": OnnxRuntimeEngine}


class OwnRunner:
    """Slots of one of our engines, without tokenizer or scheduler."""

    def __init__(self, spec: dict[str, Any]) -> None:
        """Open the engine directory `spec["path"]`."""
        limits = Limits(spec["batch"], spec["max_seq_len"], spec["chunk"])
        kind = KINDS[spec["engine"]]
        self._engine = kind(Path(spec["path"]), limits, num_threads=spec["threads"])
        self._chunk = spec["chunk"]
        self._slots: list[int] = []

    def begin(self, batch: int) -> None:
        """Release all slots and take `batch`."""
        for slot in self._slots:
            self._engine.release(slot)
        self._slots = [self._engine.allocate() for _ in range(batch)]

    def feed(self, tokens: np.ndarray) -> None:
        """Feed each slot; a long prompt in chunks."""
        for first in range(0, tokens.shape[1], self._chunk):
            rows = tokens[:, first : first + self._chunk].tolist()
            self._engine.step([Feed(s, row) for s, row in zip(self._slots, rows, strict=True)])

    def all_logits(self, tokens: np.ndarray) -> np.ndarray:
        """Feed token by token."""
        self.begin(1)
        rows = [self._engine.step([Feed(self._slots[0], [int(t)])])[0].copy() for t in tokens[0]]
        return np.array(rows)
