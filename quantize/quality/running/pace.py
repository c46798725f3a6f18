"""How long a comparison takes on this machine, by one window through one block of each kind."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of a comparison: once, and for each window of the reference and the candidate."""

    fixed_s: float
    reference_s: float
    candidate_s: float


def measured_pace(both: tuple[Checkpoint, Checkpoint], window: Ids, inside: Inside) -> Pace:
    """Return the pace of both checkpoints on windows of the size of `window` [tokens].

    `inside` compares a block's linears on a stream, which is done once, whatever the windows.
    """
    fixed_s, each_s = 0.0, [0.0, 0.0]
    for number, checkpoint in enumerate(both):
        hidden, num_tokens = _stream(checkpoint, window), len(window)
        counts = Counter(checkpoint.config.layers)
        first = {block.kind: block for block in reversed(list(blocks(checkpoint.config)))}
        for kind, block in first.items():
            opening_s, running_s = _timed(opened_block(checkpoint, block, num_tokens), hidden)
            fixed_s += opening_s * counts[kind]
            each_s[number] += running_s * counts[kind]
            if number == 0:
                begin = time.perf_counter()
                inside(block, hidden[None].copy())
                fixed_s += (time.perf_counter() - begin) * counts[kind]
        opening_s, running_s = _timed(opened_head(checkpoint, num_tokens), hidden)
        fixed_s += opening_s
        each_s[1] += running_s  # a head's logits are never kept
    return Pace(fixed_s, *each_s)


def fitting_windows(pace: Pace, minutes: float, turns: Iterable[tuple[int, int]]) -> int:
    """Return how many of `turns` are done in `minutes`, at least one.

    Each turn has a window of every text: their number, and how many the reference need not run.

    Raises:
        ConfigError: not one window fits.
    """
    left_s = 60 * minutes - pace.fixed_s
    window_s = pace.reference_s + pace.candidate_s
    for done, (count, known) in enumerate(turns):
        if done == 0 and left_s < (pace.candidate_s if known else window_s):
            least = (pace.fixed_s + window_s) / 60
            raise ConfigError(
                f"--minutes {minutes:g}: one window alone takes about {least:.1f} minutes here; "
                "give more, or smaller --sequence-tokens."
            )
        left_s -= count * window_s - known * pace.reference_s
        if left_s < 0:
            return max(1, done)
    return done + 1


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
