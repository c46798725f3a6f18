"""The folder with the Triton server and the numpy that its Python backend needs, apart from ours.

The server is the one in the nvidia-pytriton wheel. Its stubs crash with numpy 2, so it lives in a
virtual environment of its own, which the stubs find as the first `python3` on PATH.
"""

import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from nemotrt.errors import EnvironmentUnfitError

FOLDER_VARIABLE = "NEMOTRT_TRITON_RUNTIME"
REQUIREMENTS = ("nvidia-pytriton==0.7.0", "numpy<2")
SERVER_VERSION = "2.51.0"  # release 24.10, inside nvidia-pytriton 0.7.0
SUPPORTED_PYTHONS = ((3, 11), (3, 12))  # the wheel's usable stubs that numpy 1.26 has wheels for
INSTALL_COMMAND = "nemotrt serve install"
CONTAINER_FOLDER = Path("/opt/tritonserver")  # of NVIDIA's images
TRACE_TIMEOUT_S = 60
NOT_FOUND = re.compile(
    r"^\s*(\S+) => not found|error while loading shared libraries: ([^:\s]+):", re.M
)


@dataclass(frozen=True, slots=True)
class TritonRuntime:
    """A runtime folder of ours, or an installation in the layout of NVIDIA's images."""

    folder: Path

    @property
    def is_container(self) -> bool:
        """Whether the folder is laid out as in NVIDIA's images."""
        return (self.folder / "bin" / "tritonserver").is_file()

    @property
    def packages(self) -> Path:
        """Where the runtime's packages are."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"

    @property
    def server(self) -> Path:
        """The tritonserver program."""
        if self.is_container:
            return self.folder / "bin" / "tritonserver"
        return self.packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def stub(self) -> Path:
        """The Python backend's program."""
        return self.backends / "python" / "triton_python_backend_stub"

    @property
    def backends(self) -> Path:
        """The folder of backends, the Python one completed with its stub."""
        return self.folder / "backends"

    @property
    def caches(self) -> Path:
        """The folder of response caches."""
        if self.is_container:
            return self.folder / "caches"
        return self.packages / "pytriton" / "tritonserver" / "caches"

    def environment(self) -> dict[str, str]:
        """Return the variables that the server and its stubs need on top of ours.

        The stub takes its packages from the first `python3` on PATH, and must load the libpython
        of the very interpreter behind it. In a container both are as its image has them.
        """
        if self.is_container:
            return {}
        libdir = sysconfig.get_config_var("LIBDIR")
        return {
            "PATH": _joined(str(self.folder / "bin"), os.environ.get("PATH")),
            "PYTHONPATH": "",
            "LD_LIBRARY_PATH": _joined(libdir, os.environ.get("LD_LIBRARY_PATH")),
        }


def default_folder() -> Path:
    """Return where the runtime goes: $NEMOTRT_TRITON_RUNTIME, or a folder of this environment."""
    override = os.environ.get(FOLDER_VARIABLE)
    if override:
        return Path(override)
    return Path(sys.prefix) / "share" / "nemotrt" / f"triton-{SERVER_VERSION}"


def find_runtime(folder: Path | None = None) -> TritonRuntime:
    """Return the runtime in `folder`, default `default_folder()` or else a container's own.

    Raises:
        EnvironmentUnfitError: there is none, or the system lacks a library that it loads.
    """
    runtime = TritonRuntime(folder or default_folder())
    if folder is None and not is_installed(runtime):
        runtime = TritonRuntime(CONTAINER_FOLDER)
    if not is_installed(runtime):
        raise EnvironmentUnfitError(
            f"no Triton runtime in {folder or default_folder()}; install it with: {INSTALL_COMMAND}"
        )
    check_libraries(runtime)
    return runtime


def is_installed(runtime: TritonRuntime) -> bool:
    """Whether the folder holds a server and a completed Python backend."""
    has_numpy = runtime.is_container or (runtime.packages / "numpy").is_dir()
    return runtime.server.is_file() and runtime.stub.exists() and has_numpy


def check_python() -> None:
    """Raise EnvironmentUnfitError unless this interpreter has a stub."""
    if sys.version_info[:2] not in SUPPORTED_PYTHONS:
        known = ", ".join(f"{major}.{minor}" for major, minor in SUPPORTED_PYTHONS)
        raise EnvironmentUnfitError(
            f"Triton {SERVER_VERSION} has no stub for Python {sys.version.split()[0]}; "
            f"use one of {known}, or serve with --no-triton."
        )


def check_libraries(runtime: TritonRuntime) -> None:
    """Raise EnvironmentUnfitError where the system lacks what the server or its stub loads.

    The server would wait for a stub that can't start until its time is over.
    """
    lost = [name for program in (runtime.server, runtime.stub) for name in _lost(program, runtime)]
    if lost:
        python = re.match(r"libpython\d+\.\d+", lost[0])
        cure = f" (Debian, Ubuntu: apt-get install {python[0]})" if python else ""
        raise EnvironmentUnfitError(
            f"Triton's Python stub can't load {', '.join(dict.fromkeys(lost))}: "
            f"install it{cure}, or serve with --no-triton."
        )


def _lost(program: Path, runtime: TritonRuntime) -> list[str]:
    """Return the shared libraries of a program that the system's loader does not find.

    Source: ld.so(8): with LD_TRACE_LOADED_OBJECTS it lists them, and does not run the program.
    """
    environment = os.environ | runtime.environment() | {"LD_TRACE_LOADED_OBJECTS": "1"}
    try:
        done = subprocess.run(
            [program],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TRACE_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []  # no program that the loader could look at: what starts it says why
    return [first or second for first, second in NOT_FOUND.findall(done.stdout + done.stderr)]


def _joined(first: str | None, rest: str | None) -> str:
    """Return a search path with `first` in front."""
    return ":".join(part for part in (first, rest) if part)
