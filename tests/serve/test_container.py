"""What NVIDIA's images get: a repository whose model starts the engine, and their folder layout.

The image itself is stood in for by the bundled tritonserver, run without our supervisor.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.backends.tensorrt_llm.process.interpreter import PYTHON_VARIABLE
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.triton.runtime import find_runtime
from support.other_world import World

pytestmark = pytest.mark.triton


def nemotrt(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def wait_until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, "it did not happen in time"
        time.sleep(0.05)


def is_success(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).is_success
    except httpx.HTTPError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        return int(holder.getsockname()[1])


def environment() -> dict[str, str]:
    return os.environ | find_runtime().environment() | {"PYTHONPATH": os.getenv("PYTHONPATH", "")}


class Triton:
    """A tritonserver as in a container: nobody looks after it."""

    def __init__(self, repository: Path, log: Path) -> None:
        runtime = find_runtime()
        self.http, self.grpc = free_port(), free_port()
        command = [str(runtime.server), f"--model-repository={repository}"]
        command += [f"--backend-directory={runtime.backends}", "--allow-metrics=false"]
        command += ["--http-address=127.0.0.1", f"--http-port={self.http}"]
        command += ["--grpc-address=127.0.0.1", f"--grpc-port={self.grpc}"]
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=environment(), stdout=output, stderr=output
            )
        self.url = f"http://127.0.0.1:{self.http}/v2/models/nano"

    def engine(self) -> psutil.Process:
        """Return the engine's process: the stub's child."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        [engine] = [c for c in children if "nemotrt.serve.engine.host" in c.cmdline()]
        return engine

    def ask(self, prompt: str, max_tokens: int) -> httpx.Response:
        body = {"text_input": prompt, "max_tokens": max_tokens}
        return httpx.post(f"{self.url}/generate", json=body, timeout=60)


@pytest.fixture(scope="module")
def repository(engine_folder, triton_runtime, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("container") / "repository"
    options = ("--target", "container", "--include-engine", "--python", sys.executable)
    options += ("--threads", "1", "--max-queue-size", "7", "--name", "nano")
    nemotrt("serve", "repo", engine_folder, "-o", folder, *options)
    return folder


@pytest.fixture
def triton(repository, tmp_path) -> Iterator[Triton]:
    server = Triton(repository, tmp_path / "log")
    try:
        wait_until(lambda: server.process.poll() is not None or is_success(f"{server.url}/ready"))
        assert server.process.poll() is None, server.log.read_text()[-3000:]
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_the_repository_says_where_the_engine_is(repository, engine_folder, tmp_path) -> None:
    text = (repository / "nano/config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    assert parameters == {
        "engine": "engine",
        "python": sys.executable,
        "engine_options": "--max-queue-size 7 --threads 1",
    }
    copied = repository / "nano/1/engine"
    names = {path.relative_to(engine_folder) for path in engine_folder.rglob("*")}
    assert {path.relative_to(copied) for path in copied.rglob("*")} == names
    options = ("--target", "container", "--engine-path", "/mnt/an engine", "--dry-run")
    printed = nemotrt("serve", "repo", engine_folder, "-o", tmp_path / "r", *options)
    config = text_format.Parse(printed, model_config_pb2.ModelConfig())
    assert config.parameters["engine"].string_value == "/mnt/an engine"
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--include-engine",),
        ("--max-queue-size", "3"),
        ("--target", "container", "--include-engine", "--engine-path", "/x"),
        ("--target", "container", "--max-queue-s", "0"),
    ],
)
def test_options_that_exclude_each_other(engine_folder, tmp_path, options) -> None:
    nemotrt("serve", "repo", engine_folder, "-o", tmp_path / "r", *options, code=2)


def test_the_model_starts_the_engine_and_brings_it_back(triton, solo) -> None:
    expected = solo("The engine", max_tokens=12)["text"]
    assert triton.ask("The engine", 12).json()["text_output"] == expected
    engine = triton.engine()
    engine.kill()
    wait_until(lambda: triton.ask("The engine", 12).json().get("text_output") == expected)
    again = triton.engine()
    assert again.pid != engine.pid
    triton.process.send_signal(signal.SIGTERM)
    assert triton.process.wait(60) == 0
    assert not psutil.wait_procs([again], timeout=10)[1]


def test_a_front_before_it_and_no_engine_left_after_a_kill(triton, solo, repository) -> None:
    port = free_port()
    command = [sys.executable, "-m", "nemotrt", "serve", "front", str(repository / "nano/1/engine")]
    command += ["--triton", f"127.0.0.1:{triton.grpc}", "--port", str(port), "--name", "nano"]
    front = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        base = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_success(f"{base}/health"))
        body = {"model": "nano", "prompt": "A server", "max_tokens": 9, "temperature": 0}
        answer = httpx.post(f"{base}/v1/completions", json=body, timeout=60).json()
        assert answer["choices"][0]["text"] == solo("A server", max_tokens=9)["text"]
        assert httpx.get(f"{base}/metrics").status_code == 404
    finally:
        front.terminate()
        front.wait()
    engine = triton.engine()
    triton.process.kill()
    psutil.Process(engine.ppid()).kill()  # the stub: nothing is left that could tell the engine
    assert not psutil.wait_procs([engine], timeout=10)[1]


def test_an_engine_that_cannot_start_is_said_in_tritons_log(engine_folder, tmp_path) -> None:
    options = ("--target", "container", "--engine-path", "/no/engine", "--python", sys.executable)
    nemotrt("serve", "repo", engine_folder, "-o", tmp_path / "r", *options, "--name", "nano")
    server = Triton(tmp_path / "r", tmp_path / "log")
    assert server.process.wait(60) != 0
    log = server.log.read_text()
    assert "cannot start /no/engine" in log and "not an engine directory" in log


def test_a_bundles_llm_runs_behind_that_model(engine_folder, solo, tmp_path) -> None:
    """TensorRT-LLM's `LLM` is stood in for; Triton, model, engine's process, scheduler are real."""
    limits = Limits(max_batch_size=8, max_seq_len=1024, chunk_tokens=64)
    spec = BuildSpec("tensorrt-llm", "h100", limits=limits)
    shutil.copytree(TINY_MODELS["tiny-dense"], tmp_path / "checkpoint")
    build_engine(tmp_path / "checkpoint", tmp_path / "bundle", spec)
    moved = (tmp_path / "checkpoint").rename(tmp_path / "moved")
    world = World(tmp_path)  # its Python is the image's, ours is apart
    options = ("--target", "container", "--python", sys.executable, "--name", "nano")
    options += ("--checkpoint", str(moved), "--tensorrt-llm-python", str(world.python))
    nemotrt("serve", "repo", tmp_path / "bundle", "-o", tmp_path / "r", *options)
    with world.chosen() as patch:
        patch.delenv(PYTHON_VARIABLE)
        server = Triton(tmp_path / "r", tmp_path / "log")
    try:
        wait_until(lambda: server.process.poll() is not None or is_success(f"{server.url}/ready"))
        assert server.process.poll() is None, server.log.read_text()[-3000:]
        expected = solo("The city of", max_tokens=20)["text"]
        assert server.ask("The city of", 20).json()["text_output"] == expected
    finally:
        server.process.terminate()
        server.process.wait(60)


def test_nemotrt_serve_runs_the_tritonserver_of_an_image(
    engine_folder, triton_runtime, solo, tmp_path
) -> None:
    runtime, layout = find_runtime(), tmp_path / "tritonserver"
    (layout / "bin").mkdir(parents=True)
    (layout / "bin/tritonserver").symlink_to(runtime.server)
    (layout / "backends").symlink_to(runtime.backends)
    (layout / "caches").symlink_to(runtime.caches)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment().items():
            patch.setenv(name, value)  # as the image has it
        options = ("--runtime", str(layout), "--threads", "1")
        with serve_engine(engine_folder, *options, drain_s=5) as server:
            assert str(layout) in " ".join(psutil.Process(server.processes["triton"]).cmdline())
            body = {"model": "llm", "prompt": "The", "max_tokens": 6, "temperature": 0}
            answer = httpx.post(f"{server.openai_url}/completions", json=body, timeout=60).json()
    assert answer["choices"][0]["text"] == solo("The", max_tokens=6)["text"]
    assert answer["usage"]["completion_tokens"] == 6
