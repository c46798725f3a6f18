"""What a server asks of its host is asked before anything is built or started."""

import os
import resource
import shutil

import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.errors import ConfigError
from nemotrt.serve.deploy import mounts
from nemotrt.serve.processes import host
from nemotrt.serve.processes.child_process import NUM_LOG_LINES, telling_lines
from nemotrt.serve.triton import server


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return the limits of open files that were set; the first are this process's."""
    found = [(64, 1024)]
    monkeypatch.setattr(host.resource, "getrlimit", lambda _: found[-1])
    monkeypatch.setattr(host.resource, "setrlimit", lambda _, pair: found.append(pair))
    return found


def test_a_soft_limit_is_raised_and_a_hard_one_is_named(limits, engine_folder) -> None:
    host.check_host()
    assert limits[-1] == (host.LEAST_FILES, 1024)
    host.check_host()
    assert len(limits) == 2
    limits.append((64, resource.RLIM_INFINITY))
    host.check_host()
    assert limits[-1] == (host.LEAST_FILES, resource.RLIM_INFINITY)
    limits.append((64, 64))
    done = CliRunner().invoke(main, ["serve", str(engine_folder), "--no-triton", "--free-ports"])
    assert done.exit_code == 3 and "ulimit -n 4096" in done.stderr


def test_a_folder_of_processes_is_asked_for(monkeypatch, tmp_path) -> None:
    """A checkpoint is not built first."""
    monkeypatch.setattr(host, "PROC", tmp_path)
    done = CliRunner().invoke(main, ["serve", "tiny", "--free-ports"])
    assert done.exit_code == 3 and "mount it" in done.stderr


@pytest.mark.parametrize("name", ["SCRATCH", "SHARED_MEMORY"])
def test_tritons_places_are_asked_for(name, monkeypatch, tmp_path, triton_runtime) -> None:
    monkeypatch.setattr(server, name, tmp_path / "none")
    done = CliRunner().invoke(main, ["serve", "tiny", "--free-ports"])
    assert done.exit_code == 3 and "serve with --no-triton" in done.stderr
    done = CliRunner().invoke(main, ["doctor", "--need", "Triton"])
    assert done.exit_code == 3 and str(tmp_path) in done.stderr


def test_what_is_wrong_is_shown_with_the_last_lines(tmp_path) -> None:
    """Triton's own reason stands before its tables."""
    reason = "t ERROR triton E1201 00:52:15.082 28 server.cc:234] no such device"
    rest = [f"t INFO triton | row {i} |" for i in range(2 * NUM_LOG_LINES)]
    log = tmp_path / "log"
    log.write_text("\n".join(["t INFO first", reason, *rest]) + "\n")
    assert telling_lines(log) == [reason, *rest[-NUM_LOG_LINES:]]
    log.write_text(f"{reason}\nlast\n")
    assert telling_lines(log) == [reason, "last"]


def test_a_folder_that_is_closed_to_a_container(engine_folder, tmp_path) -> None:
    """By its user, whoever builds it: root's files of mode 0600 are nobody's but root's."""
    copy = shutil.copytree(engine_folder, tmp_path / "engine")
    mounts.check_readable(copy)
    (copy / "engine.json").chmod(0o600)
    owner = (copy / "engine.json").stat().st_uid
    if owner != mounts.CONTAINER_USER:
        with pytest.raises(ConfigError, match=r"chmod -R a\+rX"):
            mounts.check_readable(copy)


@pytest.mark.parametrize("includes", [False, True])
def test_a_repository_that_is_closed_to_a_container(engine_folder, tmp_path, includes) -> None:
    """Its user may open it later, so it is told, not refused."""
    engine = shutil.copytree(engine_folder, tmp_path / "engine")
    words = ["serve", "repo", str(engine), "--target", "container"]
    words += ["--include-engine"] if includes else []
    before = os.umask(0o077)
    try:
        done = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "r")])
    finally:
        os.umask(before)
    assert done.exit_code == 0, done.output
    assert f"chmod -R a+rX {tmp_path / 'r'}" in done.stderr
    open_one = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "s")])
    assert open_one.exit_code == 0 and "chmod" not in open_one.stderr
    (engine / "engine.json").chmod(0o600)
    if not includes and (engine / "engine.json").stat().st_uid != mounts.CONTAINER_USER:
        closed = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "t")])
        assert f"chmod -R a+rX {engine}" in closed.stderr


def test_what_another_program_runs_is_not_served(tmp_path) -> None:
    """Neither here, nor by a file that would start in vain elsewhere."""
    engine = str(tmp_path / "engine")
    built = ["build", "tiny", "--backend", "tensorrt-llm-1.2", "--gpu", "a10g", "-o", engine, "-q"]
    assert CliRunner().invoke(main, built).exit_code == 0
    for words in (
        ["serve", engine, "--no-triton", "--free-ports", "--dry-run"],
        ["serve", "compose", engine, "--image", "i"],
        ["serve", "k8s", engine, "--image", "i", "--claim", "c"],
        ["serve", "repo", engine, "--target", "container", "-o", str(tmp_path / "r")],
    ):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 3 and "build_on_host.sh" in done.stderr, words
    assert not (tmp_path / "r").exists()
