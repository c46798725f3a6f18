"""Each barrier of the kernels matters, and the emulator shows one that is left out."""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nemotrt.build.check.kernels.sampler_cases import SETTINGS, likely
from nemotrt.engines.backends.tensorrt.draws.tables import SAMPLER
from support.emulated_draws import Blocks, Device, check_batch
from support.emulated_kernels import EmulatedKernels, compile_set

BARRIER = "__syncthreads();"
SIZE = 10_500  # slices in more than one warp's part of the board
BARRIERS = [
    (name, index)
    for name, text in SAMPLER.sources().items()
    for index in range(text.count(BARRIER))
]


def try_without(name: str, index: int) -> None:
    """Compare the tokens with the CPU's, where a barrier of a source is left out; -1 for none."""
    with tempfile.TemporaryDirectory() as folder:
        for other, text in SAMPLER.sources().items():
            parts = text.split(BARRIER)
            if other == name and index >= 0:
                parts[index : index + 2] = [parts[index] + ";" + parts[index + 1]]
            (Path(folder) / other).write_text(BARRIER.join(parts))
        kernels = EmulatedKernels(compile_set(replace(SAMPLER, folder=Path(folder))))
    rows = np.round(likely(np.random.default_rng(4), SIZE, len(SETTINGS)))  # with ties
    for seed in range(3):
        blocks = Blocks(2, 2 + seed)
        device = Device(SIZE, len(SETTINGS), blocks=blocks, kernels=kernels, seed=seed)
        check_batch(device, rows, 1)
        device.close()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "index"), [("", -1), *BARRIERS])
def test_a_barrier_that_is_left_out_shows(name: str, index: int) -> None:
    """In a process of its own, which ends where threads wait for others that never come."""
    folder = Path(__file__).parent
    code = f"import test_barriers; test_barriers.try_without({name!r}, {index})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{folder}:{folder.parents[1]}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode == 0) == (index < 0), done.stderr[-2000:]
