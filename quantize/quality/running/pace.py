"""How long a comparison takes on this machine, by one window through one block of each kind."""

import tempfile
import time
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.model.tensor_names import blocks
from nemotrt.errors import ConfigError
from nemotrt.quantize.calibration.forward import Floats
from nemotrt.quantize.quality.running.opened import Run, opened_block, opened_head
from nemotrt.quantize.quality.running.streams import Stream

Ids = npt.NDArray[np.int64]


def fitting_windows(reference: Path, candidate: Path, window: Ids, minutes: float) -> int:
    """Return how many windows of the size of `window` [tokens] both checkpoints take in `minutes`.

    Raises:
        ConfigError: not one fits.
    """
    fixed_s = each_s = 0.0
    for folder in (reference, candidate):
        checkpoint = open_checkpoint(folder)
        hidden, num_tokens = _stream(checkpoint, window), len(window)
        counts = Counter(checkpoint.config.layers)
        first = {block.kind: block for block in reversed(list(blocks(checkpoint.config)))}
        for kind, block in first.items():
            opening_s, running_s = _timed(opened_block(checkpoint, block, num_tokens), hidden)
            fixed_s += opening_s * counts[kind]
            each_s += running_s * counts[kind]
        opening_s, running_s = _timed(opened_head(checkpoint, num_tokens), hidden)
        fixed_s, each_s = fixed_s + opening_s, each_s + running_s
    count = int((60 * minutes - fixed_s) / each_s)
    if count < 1:
        least = (fixed_s + each_s) / 60
        raise ConfigError(
            f"--minutes {minutes:g}: one window alone takes about {least:.1f} minutes here; give "
            "more, or smaller --sequence-tokens."
        )
    return count


def _stream(checkpoint: Checkpoint, window: Ids) -> Floats:
    with tempfile.TemporaryDirectory(prefix="nemotrt-") as folder:
        return Stream(Path(folder) / "stream", checkpoint, window[None])[0]


def _timed(opening: AbstractContextManager[Run], hidden: Floats) -> tuple[float, float]:
    """Return the seconds of opening, and of the second of two runs: the first reads weights."""
    begin = time.perf_counter()
    with opening as run:
        run(hidden)
        middle = time.perf_counter()
        run(hidden)
        return middle - begin, time.perf_counter() - middle
