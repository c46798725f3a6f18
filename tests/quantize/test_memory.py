"""At the 9B's widths: how much memory a run holds, beside mapped files and the page cache."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemotrt.quantize.recipes.recipe import recipe_names
from support.wide_checkpoint import write_calibration, write_checkpoint

LIMIT_BYTES = 200e6


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One Mamba and one MLP layer, 0.6 GB; a calibration beside it."""
    folder = tmp_path_factory.mktemp("wide")
    write_checkpoint(folder / "source", "M-", 1024)
    write_calibration(folder / "source", folder / "calibration")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("recipe", recipe_names())
def test_peak_anonymous_memory(wide: Path, tmp_path: Path, recipe: str) -> None:
    command = [sys.executable, "-m", "nemotrt", "quantize", str(wide / "source")]
    command += ["--recipe", recipe, "--calibration", str(wide / "calibration")]
    child = subprocess.Popen([*command, "-o", str(tmp_path / "out"), "--quiet"], cwd="/")
    status, peak, samples = Path(f"/proc/{child.pid}/status"), 0, 0
    while child.poll() is None:
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon"):
                peak, samples = max(peak, 1024 * int(line.split()[1])), samples + 1
        time.sleep(0.005)
    assert child.returncode == 0 and samples > 20
    assert 10e6 < peak < LIMIT_BYTES
