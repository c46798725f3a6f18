"""A folder appears whole or not at all."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nemotrt.errors import ConfigError
from nemotrt.files.writing import writing_folder


def test_success_takes_the_name(tmp_path: Path) -> None:
    with writing_folder(tmp_path / "deep" / "out") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "a").read_text() == "1"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, OSError])
def test_any_fault_leaves_nothing(tmp_path: Path, fault: type[BaseException]) -> None:
    with pytest.raises(fault), writing_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        raise fault
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_only_on_success(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").write_text("1")
    with pytest.raises(ConfigError, match="--force"), writing_folder(target):
        pass
    with pytest.raises(ValueError), writing_folder(target, force=True):
        raise ValueError
    assert (target / "old").exists()
    with writing_folder(target, force=True) as folder:
        (folder / "new").write_text("2")
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_file_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with (
        pytest.raises(ConfigError, match="is a file"),
        writing_folder(tmp_path / "out", force=True),
    ):
        pass
    assert (tmp_path / "out").read_text() == "mine"


def test_a_killed_process_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib; from nemotrt.files.writing import writing_folder\n"
        "with writing_folder(pathlib.Path(sys.argv[1])) as f:\n"
        "    (f / 'a').write_text('1'); print('in', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "out").exists()
    assert all(path.name.startswith(".out.partial-") for path in tmp_path.iterdir())
    with writing_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out").is_dir()
