"""Puts the Triton runtime into its folder, whole or not at all."""

import re
import subprocess
import sys
import venv
from pathlib import Path

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.files.writing import check_target, writing_folder
from nemotrt.serve.triton.runtime import (
    INSTALL_COMMAND,
    REQUIREMENTS,
    TritonRuntime,
    check_python,
    default_folder,
    is_installed,
)

PIP_TIMEOUT_S = 900
RUNTIME_MARK = "lib/*/site-packages/pytriton"  # in every runtime that we may replace
BACKEND_FILES = ("libtriton_python.so", "triton_python_backend_utils.py")
UNREACHABLE = re.compile(r"connection|timed? ?out|resolve|unreachable|no matching", re.IGNORECASE)


def install_runtime(folder: Path | None = None, *, force: bool = False) -> TritonRuntime:
    """Return the runtime in `folder`, installed from the package index unless it is there.

    Raises:
        ConfigError: the folder holds something else.
        EnvironmentUnfitError: this Python has no stub, or the packages can't be had.
    """
    check_python()
    target = folder or default_folder()
    runtime = TritonRuntime(target)
    if is_installed(runtime) and not force:
        return runtime
    check_target(target, force=True, marks=[RUNTIME_MARK])
    with writing_folder(target, force=True) as partial:
        venv.create(partial, symlinks=True)
        unfinished = TritonRuntime(partial)
        _pip_install(unfinished.packages)
        _complete_backend(unfinished)
    return runtime


def find_or_plan(folder: Path | None, *, force: bool) -> str:
    """Return what `install_runtime` would do, in words; raises as it does for this Python."""
    check_python()
    target = folder or default_folder()
    if is_installed(TritonRuntime(target)) and not force:
        return f"{target} is there already"
    check_target(target, force=True, marks=[RUNTIME_MARK])
    return f"would install {' and '.join(REQUIREMENTS)} into {target}"


def _pip_install(target: Path) -> None:
    """Install the requirements, without their dependencies, into `target`."""
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--target", str(target), *REQUIREMENTS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise EnvironmentUnfitError(
            f"installing {' and '.join(REQUIREMENTS)} took more than {PIP_TIMEOUT_S} s; "
            "check the network and try again."
        ) from None
    if done.returncode != 0:
        raise EnvironmentUnfitError(
            f"cannot install {' and '.join(REQUIREMENTS)}: {_reason(done.stderr)}"
        )


def _reason(stderr: str) -> str:
    """Return why pip failed, without the addresses that it names."""
    if "No module named pip" in stderr:
        return "this Python has no pip; install it (python -m ensurepip) and try again."
    if UNREACHABLE.search(stderr):
        return (
            "the package index can't be reached; check the network or pip's configuration, or set "
            "PIP_NO_INDEX=1 and PIP_FIND_LINKS=FOLDER for a wheelhouse (docs/guides/gpu-host.md)."
        )
    lines = [line for line in stderr.splitlines() if line.strip()]
    return re.sub(r"\S+://\S+", "<address>", lines[-1]) if lines else "pip gave no reason."


def _complete_backend(runtime: TritonRuntime) -> None:
    """Join the Python backend and this interpreter's stub, which the wheel keeps apart."""
    server = runtime.server.parent.parent
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    sources = [server / "backends" / "python" / name for name in BACKEND_FILES]
    sources.append(server / "python_backend_stubs" / version / "triton_python_backend_stub")
    backend = runtime.backends / "python"
    backend.mkdir(parents=True)
    for source in sources:
        if not source.is_file():
            raise EnvironmentUnfitError(
                f"{REQUIREMENTS[0]} lacks {source.name}; "
                f"install it anew: {INSTALL_COMMAND} --force."
            )
        relative = Path("../..") / source.relative_to(runtime.folder)
        (backend / source.name).symlink_to(relative)
