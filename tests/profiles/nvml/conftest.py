"""The stand-in NVML, compiled once and loaded under the name that nvidia-ml-py looks for."""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from support.nvml import compile_nvml, write_script

INIT = pynvml.nvmlInitWithFlags
Script = Callable[..., None]


@pytest.fixture(scope="session")
def standin_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def nvml_script(standin_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Return a function that scripts the stand-in: an A10G, with changes; None removes."""
    monkeypatch.setattr(pynvml, "nvmlInitWithFlags", INIT)  # the other tests' has no GPU
    # a GPU host's own library may be loaded already
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(standin_library)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    path = tmp_path / "nvml.txt"
    monkeypatch.setenv("NVML_STANDIN", str(path))

    def write(**changes: str | None) -> None:
        write_script(path, {_dotted(key): value for key, value in changes.items()})

    write()
    return write


def _dotted(key: str) -> str:
    """Return "0.power_mw" for the keyword gpu0_power_mw, as in the script."""
    return re.sub(r"^gpu(\d+)_", r"\1.", key)
