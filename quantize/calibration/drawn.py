"""Text that a model writes itself, as tokens: it is of the kind that the model was trained on.

The model runs on the native engine with int8 weights and draws each token from its whole
distribution. Sequences go on from the beginnings of a text, so that they have its languages.

Source: self-calibration (Williams et al., 2024), here beside a text and not in its place.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.backends.native.export import export
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits

Ids = npt.NDArray[np.int64]
BATCH = 16  # sequences at once
BEGINNING = 4  # tokens of the text that a sequence goes on from
SEED = 0


def draw_windows(
    checkpoint: Checkpoint,
    text: Ids,
    num_sequences: int,
    progress: Callable[[int], None] = lambda num_tokens: None,
) -> Ids:
    """Return [num_sequences, tokens] that the model writes, as long as the windows of a text.

    The engine lies in the folder of temporary files meanwhile, a byte for each weight.

    Args:
        checkpoint: the 16 bit model.
        text: [sequences, tokens]; drawn sequences begin as these do, in turn.
        num_sequences: how many are drawn.
        progress: told how many tokens were drawn.

    Raises:
        EnvironmentUnfitError: the native engine can't run here.
    """
    num_tokens = text.shape[1]
    start = min(BEGINNING, num_tokens - 1)
    rows = np.empty((num_sequences, num_tokens), np.int64)
    rows[:, :start] = text[np.arange(num_sequences) % len(text), :start]
    rng = np.random.default_rng(SEED)
    limits = Limits(min(BATCH, num_sequences), num_tokens, chunk_tokens=max(start, 1))
    with tempfile.TemporaryDirectory(prefix="nemotrt-") as name:
        export(checkpoint, Path(name), limits, Precision.INT8_WO)
        engine = NativeEngine(Path(name), limits)
        try:
            for begin in range(0, num_sequences, BATCH):
                _fill(engine, rows[begin : begin + BATCH], start, rng, progress)
        finally:
            engine.close()
    return rows


def _fill(
    engine: NativeEngine,
    rows: Ids,
    start: int,
    rng: np.random.Generator,
    progress: Callable[[int], None],
) -> None:
    """Draw all tokens from `start` on, in place, one of each row at a time."""
    slots = [engine.allocate() for _ in rows]
    first = 0
    for place in range(start, rows.shape[1]):
        fed = rows[:, first:place].tolist()
        logits = engine.step([Feed(slot, own, 1) for slot, own in zip(slots, fed, strict=True)])
        noise = rng.gumbel(size=logits.shape).astype(np.float32)
        rows[:, place] = (logits + noise).argmax(axis=1)
        first = place
        progress(len(rows))
    for slot in slots:
        engine.release(slot)
