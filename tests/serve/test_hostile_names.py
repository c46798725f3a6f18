"""No text of a user's reaches a command line that others parse: folders of any name are served."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.triton.runtime import TritonRuntime, default_folder
from nemotrt.serve.triton.workspace import is_plain, plan_workspace

NAMES = ["a b", "モデル", "$(touch pwned)", "`touch pwned`", "a'b\"c", "x;touch pwned", "a\nb"]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="n") as name:
        yield Path(name)


@pytest.mark.triton
@pytest.mark.parametrize(
    "name",
    [
        "モデル $(touch pwned)",
        pytest.param("a b", marks=pytest.mark.slow),
        pytest.param("-x'\"`touch pwned`;touch pwned", marks=pytest.mark.slow),
    ],
)
def test_triton_serves_from_any_folder(
    engine_folder, triton_runtime, short_path, monkeypatch, name
) -> None:
    """The engine, the run folder, the temporary folder and the runtime, all of that name."""
    hostile = short_path / name
    hostile.mkdir()
    monkeypatch.chdir(hostile)
    monkeypatch.setenv("TMPDIR", str(hostile))
    monkeypatch.setattr("tempfile.tempdir", str(hostile))
    engine = hostile / name
    shutil.copytree(engine_folder, engine)
    runtime = hostile / "run time"
    runtime.symlink_to(default_folder(), target_is_directory=True)
    options = ("--runtime", str(runtime))
    with serve_engine(Path(name), *options, drain_s=2) as server:
        assert Path(server.run_folder).is_relative_to(hostile)
        body = {"model": "llm", "prompt": "The", "max_tokens": 3, "temperature": 0}
        answer = httpx.post(f"{server.openai_url}/completions", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        assert len(list(Path("/tmp").glob(f"nemotrt-triton-{server.pid}-*"))) == 1
    assert not list(Path("/tmp").glob(f"nemotrt-triton-{server.pid}-*"))
    assert not [path for path in short_path.rglob("pwned")]


@pytest.mark.parametrize("name", [*NAMES, "é", "a%20b", "a*", "~", "a\\b", "#"])
def test_what_bash_would_read_otherwise_is_not_plain(tmp_path, name) -> None:
    runtime = TritonRuntime(tmp_path / name / "runtime")
    assert not is_plain(runtime.backends)
    workspace = plan_workspace(runtime)
    workspace.create()
    try:
        assert is_plain(workspace.backends) and is_plain(workspace.repository)
        assert workspace.backends.readlink() == runtime.backends
        assert workspace.path.stat().st_mode & 0o777 == 0o700
        with pytest.raises(FileExistsError):  # whoever is there first, it is not used
            workspace.create()
    finally:
        workspace.remove()
    assert not workspace.path.exists()


def test_without_a_plain_folder_triton_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "a b"))
    monkeypatch.setattr("nemotrt.serve.triton.workspace.BASES", (str(tmp_path / "none"),))
    with pytest.raises(EnvironmentUnfitError, match=r"TMPDIR.*--no-triton"):
        plan_workspace(TritonRuntime(tmp_path))


def test_the_workspace_of_a_killed_server_is_removed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, alive, other = (
        tmp_path / f"nemotrt-triton-{pid}-abc" for pid in (2**22 + 1, os.getppid(), "x")
    )
    for path in (dead, alive, other):
        path.mkdir()
    workspace = plan_workspace(TritonRuntime(tmp_path))
    workspace.create()
    assert {path.name for path in tmp_path.iterdir()} == {
        alive.name, other.name, workspace.path.name
    }  # fmt: skip
