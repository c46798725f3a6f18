"""The stand-in NVML, compiled once and loaded under the name that nvidia-ml-py looks for."""

import ctypes
import importlib.metadata
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

A10G = {
    "gpus": "1",
    "driver": "580.95.05",
    "cuda": "13000",
    "0.name": "A10G",
    "0.uuid": "GPU-11111111-2222-3333-4444-555555555555",
    "0.vbios": "94.02.75.00.01",
    "0.power_limit_mw": "300000",
    "0.max_sm_clock": "1710",
    "0.ecc": "1",
    "0.persistence": "1",
    "0.power_mw": "100000 200000 150000",
    "0.energy_mj": "5000 6000 7000 8000",
    "0.sm_utilization": "99",
    "0.memory_utilization": "60",
    "0.memory_used": "1073741824",
    "0.memory_total": "23684186112",
    "0.sm_clock": "1500",
    "0.memory_clock": "6250",
    "0.temperature": "55",
    "0.throttle": "0",
    "0.pcie_tx": "1200",
    "0.pcie_rx": "3400",
    "0.num_processes": "1",
}
INIT = pynvml.nvmlInitWithFlags
Script = Callable[..., None]


@pytest.fixture(scope="session")
def standin_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = importlib.metadata.files("nvidia-nvml-dev") or []
    header = next(file for file in files if file.name == "nvml.h")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("standin.c")
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += ["-Wl,-soname,libnvidia-ml.so.1", f"-I{Path(str(header.locate())).parent}"]
    subprocess.run([*command, str(source), "-o", str(library)], check=True)
    return library


@pytest.fixture
def nvml_script(standin_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Return a function that scripts the stand-in: the A10G above, with changes; None removes."""
    monkeypatch.setattr(pynvml, "nvmlInitWithFlags", INIT)  # the other tests' has no GPU
    # a GPU host's own library may be loaded already
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(standin_library)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    path = tmp_path / "nvml.txt"
    monkeypatch.setenv("NVML_STANDIN", str(path))

    def write(**changes: str | None) -> None:
        named = A10G | {_dotted(key): value for key, value in changes.items()}
        text = "".join(f"{k} {v}\n" for k, v in named.items() if v is not None)
        path.write_text(text, errors="surrogateescape")

    write()
    return write


def _dotted(key: str) -> str:
    """Return "0.power_mw" for the keyword gpu0_power_mw, as in the script."""
    return re.sub(r"^gpu(\d+)_", r"\1.", key)
