"""How long a comparison takes on this machine, by one window through one block of each kind."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.tensor_names import Block, blocks
from nemotrt.errors import ConfigError
from nemotrt.quantize.calibration.forward import Floats
from nemotrt.quantize.quality.running.opened import Run, opened_block, opened_head
from nemotrt.quantize.quality.running.streams import Stream

Ids = npt.NDArray[np.int64]
Inside = Callable[[Block, Floats], object]


def fitting_windows(
    both: tuple[Checkpoint, Checkpoint], window: Ids, minutes: float, inside: Inside
) -> int:
    """Return how many windows of the size of `window` [tokens] both checkpoints take in `minutes`.

    `inside` compares a block's linears on a stream, which is done once, whatever the windows.

    Raises:
        ConfigError: not one fits.
    """
    fixed_s = each_s = 0.0
    for checkpoint in both:
        hidden, num_tokens = _stream(checkpoint, window), len(window)
        counts = Counter(checkpoint.config.layers)
        first = {block.kind: block for block in reversed(list(blocks(checkpoint.config)))}
        for kind, block in first.items():
            opening_s, running_s = _timed(opened_block(checkpoint, block, num_tokens), hidden)
            fixed_s += opening_s * counts[kind]
            each_s += running_s * counts[kind]
            if checkpoint is both[0]:
                begin = time.perf_counter()
                inside(block, hidden[None].copy())
                fixed_s += (time.perf_counter() - begin) * counts[kind]
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
