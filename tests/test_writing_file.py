"""`writing_file`: the whole file or nothing, whatever fails."""

import errno
from pathlib import Path

import pytest

from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.files.writing import write_file, writing_file


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
