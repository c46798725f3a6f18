"""`writing_file`: the whole file or nothing, whatever fails."""

import errno
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.files.writing import check_target, write_file, writing_file


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with writing_file(target) as partial:
        partial.write_text("new")
        assert not target.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    write_file(target, b"newer")
    assert target.read_bytes() == b"newer"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_fault_leaves_the_old_file_and_nothing_else(tmp_path: Path, number: int) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    known = number != errno.EIO
    error = EnvironmentUnfitError if known else OSError
    with pytest.raises(error), writing_file(target) as partial:
        partial.write_text("half")
        raise OSError(number, "no")
    assert target.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_what_is_in_the_way_is_refused_before_work(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ConfigError, match="--force"), writing_file(tmp_path / "a.txt", force=False):
        raise AssertionError
    with pytest.raises(ConfigError, match="is not a folder"), writing_file(tmp_path / "no/a.txt"):
        raise AssertionError


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_place_that_takes_no_files_is_one_line(tmp_path: Path, number: int) -> None:
    cure = r"a\.txt can't be read or written .*give another path"
    with pytest.raises(EnvironmentUnfitError, match=cure), writing_file(tmp_path / "a.txt"):
        raise OSError(number, "no")
    assert not list(tmp_path.iterdir())


def test_a_place_that_takes_no_files_is_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only file system, which root meets too, of the folder or of the one it will be in."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    cure = "can't be written: .*Give another output than one in"
    with pytest.raises(EnvironmentUnfitError, match=cure), writing_file(tmp_path / "a.txt"):
        raise AssertionError
    with pytest.raises(EnvironmentUnfitError, match=cure):
        check_target(tmp_path / "new" / "deep")


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "to write /a/b .*make room"),
        (OSError(errno.ENOSPC, "No space left on device"), "on the disk .*make room"),
        (OSError(errno.EROFS, "Read-only file system", "/a/b"), "/a/b can't be .*another path"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b can't be .*another"),
    ],
)
def test_an_unfit_disk_is_one_line_of_any_command(
    error: OSError, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("nemotrt.doctor.doctor.callback", fail)
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 3 and re.search(cure, done.stderr), done.output
    assert done.stderr.count("\n") == 1
