"""Runs Edge-LLM's exporter, which needs torch, in an environment of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from nemotrt.errors import ChildProcessFailedError, EnvironmentUnfitError
from nemotrt.needs import pip_install

COMMAND = "tensorrt-edgellm-export"
ENVIRONMENT_VARIABLE = "NEMOTRT_EDGE_LLM"
REQUIREMENT = "tensorrt-edgellm[export]==0.11.0"
LOG_FILE = "export.log"
GRAPH_FOLDER = "llm"  # where the exporter puts a language model, below its output
KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")
NUM_LAST_LINES = 8
INSTALL = (
    f"python3 -m venv edge-llm && edge-llm/bin/{pip_install(REQUIREMENT)} && "
    f"export {ENVIRONMENT_VARIABLE}=$PWD/edge-llm"
)


def find_exporter() -> Path:
    """Return the exporter: of the environment that a variable names, beside our Python, on PATH.

    Raises:
        EnvironmentUnfitError: it is nowhere, with the lines that install it.
    """
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        path = Path(named) / "bin" / COMMAND
        if not path.is_file():
            raise EnvironmentUnfitError(
                f"{ENVIRONMENT_VARIABLE} is {named}, which has no bin/{COMMAND}. Install it: "
                f"{named}/bin/{pip_install(REQUIREMENT)}"
            )
        return path
    beside = Path(sys.executable).parent / COMMAND
    found = str(beside) if beside.is_file() else shutil.which(COMMAND)
    if found is None:
        raise EnvironmentUnfitError(
            f"Edge-LLM's exporter is not here. It needs torch, so give it an environment of its "
            f"own: {INSTALL}"
        )
    return Path(found)


def export(
    exporter: Path,
    checkpoint: Path,
    target: Path,
    report: Callable[[str], None] = lambda stage: None,
) -> Path:
    """Export `checkpoint` below `target` and return the folder with model.onnx.

    The exporter sees no GPU and no network. Its log goes to LOG_FILE in `target`.

    Raises:
        ChildProcessFailedError: it failed; the message has its last lines.
    """
    target.mkdir(parents=True, exist_ok=True)
    command = [str(exporter), str(checkpoint.resolve()), str(target.resolve())]
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
    log = target / LOG_FILE
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        try:
            assert process.stdout is not None  # a pipe, as asked
            for line in process.stdout:
                file.write(line)
                if "[torch.onnx]" in line or "tensorrt_edgellm" in line:
                    report(f"edge-llm: {line.strip()[:70]}")
            code = process.wait()
        except BaseException:
            process.kill()
            raise
    graph = target / GRAPH_FOLDER / "model.onnx"
    if code != 0 or not graph.is_file():
        raise ChildProcessFailedError(_failure(command, code, log))
    return graph.parent


def _failure(command: list[str], code: int, log: Path) -> str:
    """Return what to say of an exporter that made no graph."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    last = "\n".join(lines[-NUM_LAST_LINES:])
    what = f"exited with {code}" if code else "wrote no graph"
    return f"{' '.join(command)} {what}. Its last lines:\n{last}"
