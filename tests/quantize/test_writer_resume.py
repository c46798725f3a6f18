"""A run that was cut goes on where it was, from every place where it may be killed."""

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.quantize.calibration.calibrate import calibrate
from nemotrt.quantize.calibration.calibration import save_calibration
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.writing import partial, writer
from nemotrt.quantize.writing.writer import quantize_checkpoint
from support.quantized_bytes import FP8_DYNAMIC, INT8, folder_bytes, interrupt, leftovers


def test_resume_writes_only_what_is_missing(checkpoint: Path, tmp_path: Path) -> None:
    quantize_checkpoint(checkpoint, tmp_path / "whole", INT8)
    folder = interrupt(checkpoint, tmp_path / "out")
    inodes = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert len(inodes) == 2
    quantize_checkpoint(checkpoint, tmp_path / "out", INT8, QuantizeOptions(resume=True))
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")
    for name, stamp in inodes.items():
        assert (tmp_path / "out" / name).stat().st_mtime_ns == stamp


@pytest.mark.parametrize("place", [9, -1])
def test_resume_redoes_a_shard_whose_bytes_changed(
    checkpoint: Path, tmp_path: Path, place: int
) -> None:
    quantize_checkpoint(checkpoint, tmp_path / "whole", INT8)
    folder = interrupt(checkpoint, tmp_path / "out")
    victim = min(folder.glob("*.safetensors"))
    data = bytearray(victim.read_bytes())
    data[place] ^= 1
    victim.write_bytes(data)
    quantize_checkpoint(checkpoint, tmp_path / "out", INT8, QuantizeOptions(resume=True))
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")


def test_resume_on_a_disk_that_is_still_full_keeps_what_is_finished(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = interrupt(checkpoint, tmp_path / "out")
    usage = shutil.disk_usage(tmp_path)._replace(free=1)
    with (
        monkeypatch.context() as patch,
        pytest.raises(EnvironmentUnfitError, match=r"needs .* more"),
    ):
        patch.setattr(writer.shutil, "disk_usage", lambda path: usage)
        quantize_checkpoint(checkpoint, tmp_path / "out", INT8, QuantizeOptions(resume=True))
    assert len(list(folder.glob("*.safetensors"))) == 2
    quantize_checkpoint(checkpoint, tmp_path / "out", INT8, QuantizeOptions(resume=True))
    assert leftovers(tmp_path / "out") == ["out"]


def test_resume_refuses_another_recipe(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = interrupt(checkpoint, tmp_path / "out")
    with pytest.raises(ConfigError, match="another checkpoint, recipe or option"):
        quantize_checkpoint(checkpoint, tmp_path / "out", FP8_DYNAMIC, QuantizeOptions(resume=True))
    assert len(list(folder.glob("*.safetensors"))) == 2  # still there for the right command
    quantize_checkpoint(checkpoint, tmp_path / "out", FP8_DYNAMIC)
    assert leftovers(tmp_path / "out") == ["out"]


def test_two_processes_do_not_fill_one_folder(checkpoint: Path, tmp_path: Path) -> None:
    with (
        partial.filling_folder(tmp_path / "out", "plan"),
        pytest.raises(EnvironmentUnfitError, match="another process"),
    ):
        quantize_checkpoint(checkpoint, tmp_path / "out", INT8)


# Runs `nemotrt quantize`, killing itself at the n-th call that changes the disk.
KILLED_RUN = """
import os, shutil, signal, sys
from pathlib import Path
count = 0
def deadly(function):
    def call(*arguments, **named):
        global count
        count += 1
        if count == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call
changes = "pwrite copy_file_range sendfile ftruncate replace rename unlink mkdir rmdir"
for name in changes.split():
    setattr(os, name, deadly(getattr(os, name)))
Path.write_text = deadly(Path.write_text)
from nemotrt.quantize.command import quantize
quantize.main(sys.argv[2:], standalone_mode=False)
print(count)
"""


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["int8-wo", "int8-sq"])
def test_fifty_kills_at_random_moments(
    make_checkpoint: Callable[..., Path], tmp_path: Path, recipe: str
) -> None:
    """Whenever SIGKILL comes, the target is absent or whole, and --resume completes it.

    One recipe fills a new folder, the other replaces an older output, which may stay till the end.
    """
    source, target, older = make_checkpoint(), tmp_path / "out", tmp_path / "before"
    calibration = tmp_path / "c"
    save_calibration(calibrate(open_checkpoint(source), np.arange(32).reshape(2, 16)), calibration)
    quantize_checkpoint(source, older, FP8_DYNAMIC)
    options = QuantizeOptions(calibration=calibration)
    quantize_checkpoint(source, tmp_path / "whole", load_recipe(recipe), options)
    arguments = [str(source), "--recipe", recipe, "-o", str(target), "--resume", "--quiet"]
    replaces = recipe == "int8-sq"
    if replaces:
        arguments += ["--force", "--calibration", str(calibration)]

    def run(deadly_call: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED_RUN, str(deadly_call), *arguments]
        return subprocess.run(command, cwd="/", capture_output=True, text=True)

    def begin() -> None:
        shutil.rmtree(target, ignore_errors=True)
        if replaces:
            shutil.copytree(older, target)

    begin()
    num_calls = int(run(0).stdout)
    expected, before = folder_bytes(target), folder_bytes(older)
    assert num_calls > 60 and same_but_the_record(expected, folder_bytes(tmp_path / "whole"))
    last = {num_calls - number for number in range(10)}  # the renames, and what is removed
    moments = {*last, *random.sample(range(1, num_calls - 9), 40)}
    for deadly_call in sorted(moments, key=lambda call: random.random()):
        begin()
        assert run(deadly_call).returncode == -signal.SIGKILL
        if target.exists() and folder_bytes(target) == expected and not replaces:
            continue
        assert not target.exists() or (replaces and folder_bytes(target) in (before, expected))
        assert run(0).returncode == 0
        assert folder_bytes(target) == expected
        assert leftovers(target) == ["out"]


def same_but_the_record(one: dict[str, bytes], other: dict[str, bytes]) -> bool:
    """Whether two outputs are alike but for the record, which has the command's settings."""
    return one | {writer.RECORD_FILE: b""} == other | {writer.RECORD_FILE: b""}
