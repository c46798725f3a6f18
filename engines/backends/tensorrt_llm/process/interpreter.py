"""Which Python has TensorRT-LLM, and in which environment it runs."""

import importlib.util
import os
import shutil
import subprocess
import sys

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.needs import TENSORRT_LLM

PYTHON_VARIABLE = "NEMOTRT_TENSORRT_LLM_PYTHON"
SYSTEM_PYTHON = "/usr/bin/python3"  # NVIDIA's images have it there
HINT = f"{TENSORRT_LLM.cure}; then give that Python by --tensorrt-llm-python or ${PYTHON_VARIABLE}"
HAS_IT = "import importlib.util, sys; sys.exit(importlib.util.find_spec('tensorrt_llm') is None)"
PROBE_TIMEOUT_S = 60.0
SECRETS = {"KEY", "KEYS", "TOKEN", "TOKENS", "SECRET", "SECRETS", "PASSWORD", "CREDENTIALS"}
OWN_VARIABLES = ("TLLM_", "TRTLLM_")  # TensorRT-LLM's, whatever they are called


def find_python(given: str | None = None) -> str:
    """Return the Python that has TensorRT-LLM.

    That is what is `given`, or the variable's; else this one, `python3` or the system's, whichever
    has it first.

    Raises:
        EnvironmentUnfitError: the chosen one is not there or has it not, or none has.
    """
    chosen = given or os.environ.get(PYTHON_VARIABLE)
    if not chosen:
        if importlib.util.find_spec("tensorrt_llm") is not None:
            return sys.executable
        for python in dict.fromkeys((shutil.which("python3"), SYSTEM_PYTHON)):
            if python and python != sys.executable and _has_it(python):
                return python
        raise EnvironmentUnfitError(f"TensorRT-LLM is in no Python here: {HINT}")
    found = shutil.which(chosen)
    if found is None:
        raise EnvironmentUnfitError(
            f"{chosen}, which is to run TensorRT-LLM, is no program here: {HINT}"
        )
    if not _has_it(found):
        raise EnvironmentUnfitError(f"{chosen} has no module tensorrt_llm: {HINT}")
    return found


def command(python: str, *words: str) -> list[str]:
    """Return a command of that Python, which finds no more than its own packages."""
    # Ours may have what it needs from PYTHONPATH.
    return [python, "-P" if python == sys.executable else "-I", *words]


def environment(python: str) -> dict[str, str]:
    """Return our environment without secrets, and without what steers our Python into our world."""
    return {
        name: value
        for name, value in os.environ.items()
        if not _is_secret(name) and (python == sys.executable or not name.startswith("PYTHON"))
    }


def _is_secret(name: str) -> bool:
    """Whether a variable's name says that its value is one."""
    return not name.startswith(OWN_VARIABLES) and not SECRETS.isdisjoint(name.upper().split("_"))


def _has_it(python: str) -> bool:
    """Whether a Python finds the package; nothing of it is imported."""
    try:
        done = subprocess.run(
            command(python, "-c", HAS_IT),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment(python),
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
