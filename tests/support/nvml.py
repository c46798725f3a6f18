"""The stand-in NVML: compiled against NVIDIA's own header; a script says what it tells."""

import importlib.metadata
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "profiles/nvml/standin.c"
NAME = "libnvidia-ml.so.1"
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


def compile_nvml(folder: Path) -> Path:
    """Compile the library into a folder, under the name that nvidia-ml-py looks for."""
    files = importlib.metadata.files("nvidia-nvml-dev") or []
    header = next(file for file in files if file.name == "nvml.h")
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-Wl,-soname,{NAME}"]
    command += [f"-I{Path(str(header.locate())).parent}", str(SOURCE), "-o", str(folder / NAME)]
    subprocess.run(command, check=True)
    return folder / NAME


def write_script(path: Path, changes: dict[str, str | None]) -> None:
    """Script the A10G above, with changes; None removes a line."""
    named = A10G | changes
    text = "".join(f"{key} {value}\n" for key, value in named.items() if value is not None)
    path.write_text(text, errors="surrogateescape")
