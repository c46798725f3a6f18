"""`nemotrt serve` and its subcommands, with their exit codes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from nemotrt.cli import main
from nemotrt.serve.processes import packages
from nemotrt.serve.processes.run_folder import ServerState, create_run_folder, start_ticks
from nemotrt.wire.tensors import INPUTS, OUTPUTS

ROOT = Path(__file__).resolve().parents[2]


def nemotrt(*arguments: object, code: int = 0):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_repo_is_what_triton_reads_and_reproducible(engine_folder, tmp_path) -> None:
    for name in ("a", "b"):
        nemotrt("serve", "repo", engine_folder, "-o", tmp_path / name, "--name", "nano")
    text = (tmp_path / "a/nano/config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert config.name == "nano" and config.backend == "python"
    assert config.model_transaction_policy.decoupled
    assert [tensor.name for tensor in config.input] == [spec.name for spec in INPUTS]
    assert all(tensor.optional for tensor in config.input)
    assert [tensor.name for tensor in config.output] == [spec.name for spec in OUTPUTS]
    files = {p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()}
    assert Path("nano/1/model.py") in files
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_repo_refuses_an_existing_folder_and_a_bad_name(engine_folder, tmp_path) -> None:
    nemotrt("serve", "repo", engine_folder, "-o", tmp_path, code=2)
    bad = ("serve", "repo", engine_folder, "-o", tmp_path / "r", "--name", "a/b")
    assert "model name" in nemotrt(*bad, code=2).output


def test_the_model_needs_only_the_standard_library_and_numpy(engine_folder, tmp_path) -> None:
    nemotrt("serve", "repo", engine_folder, "-o", tmp_path / "r")
    folder = tmp_path / "r/llm/1"
    allowed = {"numpy", "triton_python_backend_utils", *sys.stdlib_module_names}
    for path in folder.rglob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]) and not words[1].startswith("."):
                is_copied = (folder / f"{words[1].replace('.', '/')}.py").is_file()
                assert is_copied or words[1].split(".")[0] in allowed, (path.name, line)


def test_the_model_finds_its_copy_of_the_wire(engine_folder, tmp_path) -> None:
    """In a Python that has nothing of ours, with the version folder on its path as Triton does."""
    nemotrt("serve", "repo", engine_folder, "-o", tmp_path / "r")
    names = sorted(p.stem for p in (ROOT / "wire").glob("*.py") if p.stem != "__init__")
    code = f"import sys; sys.path.append({str(tmp_path / 'r/llm/1')!r})\n"
    code += "".join(f"import nemotrt.wire.{name} as m; print(m.__file__)\n" for name in names)
    found = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert all(line.startswith(str(tmp_path)) for line in found.stdout.split())
    assert {"frames", "tensors"} <= set(names)


@pytest.mark.parametrize("flag", ["--http-port", "--grpc-port", "--metrics-port", "--runtime"])
def test_triton_s_options_go_not_with_no_triton(flag: str, engine_folder, tmp_path) -> None:
    result = nemotrt("serve", engine_folder, "--no-triton", flag, "9999", code=2)
    assert f"{flag}: of Triton, which --no-triton leaves out" in result.output


def test_without_triton_its_ports_are_free_for_ours(engine_folder, tmp_path) -> None:
    """8000 is Triton's by default, which does not run here."""
    run_dir = ("--dry-run", "--run-dir", tmp_path / "run")
    nemotrt("serve", engine_folder, "--no-triton", "--port", 8000, *run_dir)


def test_threads_are_for_engines_of_the_cpu(engine_folder, tmp_path) -> None:
    engine = shutil.copytree(engine_folder, tmp_path / "e")
    manifest = json.loads((engine / "engine.json").read_text()) | {"backend": "tensorrt"}
    (engine / "engine.json").write_text(json.dumps(manifest))
    words = "--threads is for backends onnxruntime and native; this engine is tensorrt's."
    for command in (
        ("serve", engine, "--no-triton", "--threads", 1),
        ("generate", engine, "x", "--threads", 1),
    ):
        assert words in " ".join(nemotrt(*command, code=2).output.split())


def test_serve_without_the_runtime_names_the_command(engine_folder, tmp_path) -> None:
    result = nemotrt("serve", engine_folder, "--runtime", tmp_path, "--free-ports", code=3)
    assert "nemotrt serve install" in result.output


def test_a_missing_package_names_the_extra(engine_folder, monkeypatch) -> None:
    monkeypatch.setattr(packages, "ALWAYS", ("no_such_package",))
    result = nemotrt("serve", engine_folder, "--free-ports", code=3)
    assert "no_such_package" in result.output and "nemotrt[serve]" in result.output


def test_serve_refuses_what_is_no_engine(tmp_path) -> None:
    nemotrt("serve", tmp_path, "--free-ports", "--no-triton", code=1)


def test_serve_refuses_a_port_in_use(engine_folder) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        result = nemotrt("serve", engine_folder, "--no-triton", "--port", port, code=3)
    assert f"127.0.0.1:{port}" in result.output


def test_dry_run_starts_nothing(engine_folder, tmp_path) -> None:
    options = ("--no-triton", "--free-ports", "--dry-run", "--run-dir", tmp_path / "run")
    assert "would serve" in nemotrt("serve", engine_folder, *options).output


@pytest.mark.parametrize(
    "options",
    [
        ("--port", "8000", "--http-port", "8000"),
        ("--tls-key", "x"),
        ("--drain-s", "-1"),
        ("--max-chunks-per-s", "0"),
        ("--api-key-file", "/does/not/exist"),
    ],
)
def test_wrong_options_are_refused(engine_folder, options) -> None:
    nemotrt("serve", engine_folder, "--no-triton", "--free-ports", *options, code=2)


def test_install_offline_is_exit_3_and_leaves_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    result = nemotrt("serve", "install", "--runtime", tmp_path / "runtime", code=3)
    assert "package index can't be reached" in result.output
    assert "127.0.0.1" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_install_twice_is_one_install(triton_runtime) -> None:
    folder = Path(nemotrt("serve", "install").output.strip())
    before = (folder / "backends").stat().st_mtime_ns
    nemotrt("serve", "install")
    assert (folder / "backends").stat().st_mtime_ns == before


def test_help_of_the_group_and_of_run() -> None:
    assert "ENGINE" in nemotrt("serve", "--help").output
    assert "--http-port" in nemotrt("serve", "run", "--help").output


def start_and_wait(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Return a server that has printed its addresses."""
    with log.open("wb") as output:
        server = subprocess.Popen(command, stderr=output)
    for _ in range(600):
        if "OpenAI http://" in log.read_text():
            return server
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_status_and_stop(engine_folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("NEMOTRT_RUN_DIR", str(tmp_path))
    assert json.loads(nemotrt("serve", "status", "--json").output)["servers"] == []
    nemotrt("serve", "stop", code=2)
    command = [sys.executable, "-m", "nemotrt", "serve", str(engine_folder), "--no-triton"]
    server = start_and_wait([*command, "--free-ports", "--logs"], tmp_path / "log")
    [state] = json.loads(nemotrt("serve", "status", "--json").output)["servers"]
    assert state["status"] == "ready" and state["pid"] == server.pid
    for text in (nemotrt("serve", "logs").output, (tmp_path / "log").read_text()):
        assert "engine | " in text and "is ready, pid" in text
    assert "a server named" in nemotrt("serve", engine_folder, "--free-ports", code=2).output
    assert "stopped" in nemotrt("serve", "stop").output
    assert server.wait(10) == 0


def test_an_engine_that_cannot_start_is_exit_5(engine_folder, tmp_path) -> None:
    options = ("--no-triton", "--free-ports", "--engine-module", "no_such_module")
    command = [sys.executable, "-m", "nemotrt", "serve", str(engine_folder), *options]
    done = subprocess.run(
        [*command, "--run-dir", str(tmp_path / "r")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 5
    for part in ("no_such_module", "exit code 1", "engine.log", "No module named"):
        assert part in done.stderr


def test_ctrl_c_is_exit_130(engine_folder, tmp_path) -> None:
    options = ("--no-triton", "--free-ports", "--run-dir", str(tmp_path / "r"))
    command = [sys.executable, "-m", "nemotrt", "serve", str(engine_folder), *options]
    server = start_and_wait(command, tmp_path / "log")
    server.send_signal(signal.SIGINT)
    assert server.wait(20) == 130


def test_a_run_folder_path_that_is_too_long_is_refused(tmp_path) -> None:
    from nemotrt.errors import ConfigError

    with pytest.raises(ConfigError, match="too long"):
        create_run_folder(tmp_path / ("x" * 120))


def test_a_dead_server_does_not_hold_its_folder(tmp_path) -> None:
    folder = create_run_folder(tmp_path / "r")
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    urls = {"openai_url": "", "http_url": None, "grpc_url": None, "metrics_url": None}
    urls["start_ticks"] = start_ticks(os.getppid())
    state = ServerState("r", int(gone.stdout), "ready", "e", "llm", str(folder.path), **urls)
    folder.write_state(state)
    assert folder.read_state() == state and not state.is_alive
    create_run_folder(tmp_path / "r")
    folder.write_state(ServerState("r", os.getppid(), "ready", "e", "llm", "", **urls))
    with pytest.raises(Exception, match="runs already"):
        create_run_folder(tmp_path / "r")
