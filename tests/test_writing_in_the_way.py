"""What is at an output's place: a folder of somebody's, a link, a device, another process's."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.errors import ConfigError
from nemotrt.files.writing import check_target, take_name, write_file, writing_folder
from nemotrt.profiles.runs.run_folder import write_folder
from support.simulated_run import simulate


def test_force_replaces_what_is_ours_and_nothing_else(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    check_target(home, force=True, marks=["engine.json"])  # an empty folder holds nothing
    (home / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"no engine\.json or \*/config\.pbtxt, so it holds"):
        check_target(home, force=True, marks=["engine.json", "*/config.pbtxt"])
    (home / "engine.json").touch()
    check_target(home, force=True, marks=["engine.json"])


@pytest.mark.parametrize("name", [".", "", "..", "../here"])
def test_the_working_folder_is_never_replaced(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/mine").touch()
    monkeypatch.chdir(tmp_path / "here")
    with (
        pytest.raises(ConfigError, match="is where you are"),
        writing_folder(Path(name), force=True),
    ):
        raise AssertionError
    assert (tmp_path / "here/mine").exists()


def test_who_comes_second_replaces_nothing_without_force(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="wrote it meanwhile"),
        writing_folder(tmp_path / "a") as it,
    ):
        (it / "second").touch()
        with writing_folder(tmp_path / "a") as other:
            assert other != it  # of one process, as of two that have one number
            (other / "first").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "first"]


def test_a_rename_that_fails_gives_the_old_folder_back(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/old").touch()
    with pytest.raises(OSError, match="No such file"):
        take_name(tmp_path / "missing", tmp_path / "a")
    assert (tmp_path / "a/old").exists()


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "out").symlink_to(disk)
    (tmp_path / "file").symlink_to(disk / "text")
    for text in ("1", "2"):
        with writing_folder(tmp_path / "out", force=True) as folder:
            assert folder.parent == disk.parent.resolve()
            (folder / "a").write_text(text)
        assert (tmp_path / "out").is_symlink() and (disk / "a").read_text() == text
        write_file(tmp_path / "file", text)
        assert (tmp_path / "file").is_symlink() and (disk / "text").read_text() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "file", "out"]


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    """As /dev/null and /dev/stdout are, which root could replace by a file."""
    pipe = tmp_path / "pipe"
    said: list[str] = []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: said.append(pipe.read_text()), daemon=True)
    reader.start()
    write_file(pipe, "all of it", force=False)
    reader.join(10)
    assert said == ["all of it"] and stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; give the name of a file"):
        write_file(tmp_path, "")


def test_threads_that_write_one_file_leave_a_whole_one(tmp_path: Path) -> None:
    texts = [letter * 100_000 for letter in "abcd"]

    def write(text: str) -> None:
        for _ in range(3):
            write_file(tmp_path / "a", text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_text() in texts and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["build", "tiny"],
        ["quantize", "tiny", "--recipe", "int8-wo"],
        ["pack", "ENGINE"],
        ["serve", "repo", "ENGINE"],
        ["serve", "install"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_no_command_replaces_a_folder_of_somebody(
    tmp_path: Path, words: list[str], tiny_engine: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years of work")
    words = [str(tiny_engine) if word == "ENGINE" else word for word in words]
    flag = "--runtime" if words[1] == "install" else "-o"
    done = CliRunner().invoke(main, [*words, flag, str(home), "--force"])
    assert done.exit_code == 2 and "is not replaced, even with --force" in done.stderr, done.output
    assert os.listdir(home) == ["thesis.txt"] and os.listdir(tmp_path) == ["home"]


def with_output(command: click.Command, path: str = "") -> Iterator[tuple[str, set[str]]]:
    """Each command that takes -o, with its flags."""
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from with_output(found, f"{path} {name}".strip())
    flags = {flag for parameter in command.params for flag in parameter.opts}
    if "-o" in flags:
        yield path, flags


def test_what_takes_an_output_takes_force() -> None:
    found = dict(with_output(main))
    assert {"build", "compare", "evaluate", "report"} < set(found)
    assert [path for path, flags in found.items() if "--force" not in flags] == []


@pytest.mark.parametrize(
    "words",
    [
        ["report", "RUN", "OTHER"],
        ["compare", "RUN", "OTHER"],
        ["evaluate", "tiny", "--against", "tiny"],
    ],
    ids=lambda words: words[0],
)
def test_a_page_takes_no_files_place(tmp_path: Path, words: list[str]) -> None:
    """Measurements that took a night, say; and it is told before anything is read or run."""
    for seed, name in enumerate(("RUN", "OTHER")):
        write_folder(simulate(seed, users=2, osl=20, per_user=4), tmp_path / name, force=False)
    words = [str(tmp_path / word) if word in ("RUN", "OTHER") else word for word in words]
    kept = tmp_path / "RUN" / "result.json"
    before = kept.read_bytes()
    done = CliRunner().invoke(main, [*words, "-o", str(kept)])
    assert done.exit_code == 2 and "add --force" in done.stderr, done.output
    assert kept.read_bytes() == before
    if words[0] != "evaluate":
        done = CliRunner().invoke(main, [*words, "-o", str(kept), "--force"])
        assert done.exit_code == 0 and kept.read_bytes().startswith(b"<!doctype html>")


def test_a_runs_own_page_is_made_anew(tmp_path: Path) -> None:
    write_folder(simulate(1, users=2, osl=20, per_user=4), tmp_path / "run", force=False)
    (tmp_path / "run" / "report.html").write_text("old")
    done = CliRunner().invoke(main, ["report", str(tmp_path / "run")])
    assert done.exit_code == 0 and (tmp_path / "run" / "report.html").stat().st_size > 1000
