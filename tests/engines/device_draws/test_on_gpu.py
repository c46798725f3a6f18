"""The device sampler on a real GPU. Not executed by its authors: run `pytest -m gpu` there."""

from pathlib import Path

import numpy as np
import pytest

from nemotrt.engines.backends.tensorrt.device.cuda import Cuda, cuda_api
from nemotrt.engines.backends.tensorrt.draws.library import open_sampler_library
from support.emulated_draws import Blocks, Device, check_batch
from support.sampler_cases import REAL, SETTINGS, likely

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("size", [300, REAL, 151_936])
@pytest.mark.parametrize("kind", ["likely", "flat", "equal"])
@pytest.mark.parametrize("blocks", [Blocks(), Blocks(1, 1), Blocks(3, 7)], ids=str)
def test_tokens_are_the_cpu_s(
    size: int, kind: str, blocks: Blocks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, whatever the launch: weights, masses, penalties, masks, forced tokens."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cuda, num_steps = Cuda(cuda_api()), 4
    library = open_sampler_library(cuda.compute_capability)
    random = np.random.default_rng(2)
    shape = (num_steps * len(SETTINGS), size)
    rows = {
        "likely": likely(random, size, shape[0]),
        "flat": random.normal(size=shape).astype(np.float32),
        "equal": np.zeros(shape, np.float32),
    }[kind]
    device = Device(size, len(SETTINGS), num_rows=shape[0], blocks=blocks, gpu=(cuda, library))
    check_batch(device, rows, num_steps)
    device.close()
