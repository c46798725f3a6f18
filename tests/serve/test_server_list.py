"""Servers with a run folder of their own are listed, stopped and followed like the others."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.serve.processes.launcher import wait_stopped
from nemotrt.serve.processes.run_folder import (
    RunFolder,
    ServerState,
    create_run_folder,
    runs_root,
    start_ticks,
)
from nemotrt.serve.supervision.server_list import choose_server, list_states, register, unregister


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("NEMOTRT_RUN_DIR", str(tmp_path / "root"))
    return tmp_path / "root"


def leave_state(path: Path, pid: int | None = None) -> RunFolder:
    """Leave what a server of this very process leaves in `path`."""
    folder = create_run_folder(path)
    urls = {"openai_url": "http://x", "http_url": None, "grpc_url": None, "metrics_url": None}
    pid = os.getpid() if pid is None else pid
    ticks = start_ticks(pid)
    assert ticks is not None
    where = (str(folder.path), *urls.values(), ticks)
    state = ServerState(path.name, pid, "ready", "e", "llm", *where)
    folder.write_state(state)
    register(folder)
    return folder


def names() -> list[str]:
    return sorted(state.name for state in list_states())


def test_a_folder_elsewhere_is_listed_until_it_goes(tmp_path, root) -> None:
    leave_state(runs_root() / "inside")
    elsewhere = leave_state(tmp_path / "my runs" / "outside")
    assert names() == ["inside", "outside"]
    unregister(elsewhere)
    assert names() == ["inside"]
    register(elsewhere)
    shutil.rmtree(elsewhere.path)
    assert names() == ["inside"]
    assert [path.name for path in root.iterdir()] == ["inside"]  # the stale link is gone


def test_two_servers_of_one_name_are_told_apart_by_their_folders(tmp_path) -> None:
    one, two = (leave_state(tmp_path / folder / "run") for folder in ("a", "b"))
    assert names() == ["run", "run"]
    with pytest.raises(ConfigError, match=r"2 servers are named 'run'.*--run-dir"):
        choose_server("run", None, is_alive=True)
    for folder in (one, two):
        found = choose_server(None, folder.path, is_alive=True)
        assert found.run_folder == str(folder.path)
    with pytest.raises(ConfigError, match="no such server"):
        choose_server("other", one.path, is_alive=True)
    with pytest.raises(ConfigError, match="no such server"):
        choose_server(None, tmp_path, is_alive=True)


def test_a_folder_of_another_user_is_not_believed(tmp_path) -> None:
    """Its server.json names a process that `stop` would end."""
    folder = leave_state(tmp_path / "planted")
    leave_state(runs_root() / "own")
    os.chown(folder.path, 12345, 12345)
    assert names() == ["own"]


def test_a_damaged_state_does_not_hide_the_others(tmp_path, caplog) -> None:
    leave_state(runs_root() / "whole")
    for name, text in [("cut", '{"name": "x'), ("other", '{"nom": 1}'), ("list", "[]")]:
        folder = create_run_folder(runs_root() / name)
        (folder.path / "server.json").write_text(text)
        with pytest.raises(ArtefactError, match=r"server\.json can't be read"):
            folder.read_state()
    assert names() == ["whole"]
    assert caplog.text.count("can't be read") == 3


def test_the_common_temporary_folder_is_no_place_for_another_users_root(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.delenv("NEMOTRT_RUN_DIR")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = tmp_path / f"nemotrt-{os.getuid()}"
    create_run_folder(root / "first")
    assert root.stat().st_mode & 0o777 == 0o700
    os.chown(root, 12345, 12345)
    with pytest.raises(ConfigError, match="another user"):
        create_run_folder(root / "second")


def test_the_commands_see_a_server_with_a_run_dir(engine_folder, tmp_path) -> None:
    run_dir = tmp_path / "of its own"
    command = [sys.executable, "-m", "nemotrt", "serve", str(engine_folder), "--no-triton"]
    command += ["--free-ports", "--run-dir", str(run_dir)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        assert any("OpenAI http://" in line for line in server.stderr)
        [state] = json.loads(invoke("status", "--json"))["servers"]
        assert (state["pid"], state["name"]) == (server.pid, "of its own")
        assert str(run_dir) in invoke("status")
        assert "is ready, pid" in invoke("logs", "of its own")
        assert "is ready, pid" in invoke("logs", "--run-dir", str(run_dir))
        same = [*command[3:], "--name", "other"]
        refused = CliRunner().invoke(main, same)
        assert refused.exit_code == 2
        assert "server named 'of its own'" in refused.output and "--run-dir" in refused.output
        assert "--name" not in refused.output  # that is the model's
        assert "stopped" in invoke("stop", "of its own")
        assert server.wait(20) == 0
    assert json.loads(invoke("status", "--json"))["servers"] == []


def invoke(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["serve", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_dry_run_leaves_no_folder_and_finds_the_same_faults(engine_folder, tmp_path) -> None:
    """Neither the run folder nor the folder of run folders."""
    words = ["serve", str(engine_folder), "--no-triton", "--free-ports", "--dry-run"]
    for run_dir in ([], ["--run-dir", str(tmp_path / "a" / "b")]):
        assert CliRunner().invoke(main, [*words, *run_dir]).exit_code == 0
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for place, code in [("file", 3), ("file/below", 3), ("x" * 120, 2)]:
        result = CliRunner().invoke(main, [*words, "--run-dir", str(tmp_path / place)])
        assert result.exit_code == code, result.output
    leave_state(tmp_path / "live", os.getppid())
    result = CliRunner().invoke(main, [*words, "--run-dir", str(tmp_path / "live")])
    assert result.exit_code == 2 and "runs already" in result.output


def test_a_process_that_has_got_a_dead_servers_id_is_left_alone(tmp_path) -> None:
    """Its server.json names an id that now belongs to a process which started later."""
    with subprocess.Popen(["sleep", "60"]) as bystander:
        folder = leave_state(runs_root() / "dead", bystander.pid)
        state = folder.read_state()
        assert state is not None and state.is_alive
        older = dataclasses.replace(state, start_ticks=state.start_ticks - 1)
        folder.write_state(older)
        assert wait_stopped(older, 1)
        [listed] = json.loads(invoke("status", "--json"))["servers"]
        assert not listed["is_alive"] and "dead: dead" in invoke("status")
        assert CliRunner().invoke(main, ["serve", "stop", "dead"]).exit_code == 2
        create_run_folder(folder.path)  # the folder is free for another server
        assert bystander.poll() is None
        assert wait_stopped(state, 30)
        assert bystander.wait(5) == -signal.SIGTERM
    assert start_ticks(bystander.pid) is None


def test_a_state_that_does_not_say_when_its_process_started_is_not_believed(tmp_path) -> None:
    folder = leave_state(tmp_path / "old")
    raw = json.loads((folder.path / "server.json").read_text())
    del raw["start_ticks"]
    (folder.path / "server.json").write_text(json.dumps(raw))
    with pytest.raises(ArtefactError, match="start_ticks"):
        folder.read_state()
