"""What NVIDIA's driver brings to a host, as a folder: libcuda, NVML, nvidia-smi.

Both libraries say which GPU there is, by the facts of our profile of it, and its name says that it
is none. The numbers of power, clocks and temperature are made up: they show that they arrive.
"""

import subprocess
from pathlib import Path

from nemotrt.profiles.hardware.gpu_profile import load_gpu
from support.nvml import compile_nvml, write_script

HERE = Path(__file__).parent
PLACE = Path("/driver")  # where a namespace shows it
UUID = bytes.fromhex("11111111222233334444555555555555")
LABEL = "rehearsal-no-GPU"  # one word: a script of NVML is read by words


def make_driver(folder: Path, gpu: str, version: str = "580.95.05", cuda: int = 13000) -> Path:
    """Make the folder for a GPU of ours by name, of a version that speaks that CUDA."""
    facts = load_gpu(gpu)
    name = f"{facts.name.upper()}-{LABEL}"
    num_bytes = facts.datasheet.memory_mib << 20
    major, minor = facts.compute_capability.split(".")
    libraries = folder / "lib"
    libraries.mkdir(parents=True)
    compile_nvml(libraries)
    given = {
        "NAME": f'"{name}"',
        "MAJOR": major,
        "MINOR": minor,
        "MEMORY_BYTES": f"{num_bytes}ul",
        "CUDA_VERSION": str(cuda),
        "UUID": ",".join(map(str, UUID)),
    }
    command = ["cc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += [f"-D{key}={value}" for key, value in given.items()]
    target = str(libraries / "libcuda.so.1")
    subprocess.run([*command, str(HERE / "libcuda.c"), "-o", target], check=True)
    energy = " ".join(str(5000 + 10_000 * i) for i in range(4000))
    told = {
        "driver": version,
        "cuda": str(cuda),
        "0.name": name,
        "0.memory_total": str(num_bytes),
        "0.compute_capability": f"{major}{minor}",
        "0.energy_mj": energy,
        "0.num_processes": "0",
    }
    write_script(folder / "nvml.txt", told)
    return folder


def environment() -> dict[str, str]:
    """Return the variables with which a process finds the driver."""
    return {"LD_LIBRARY_PATH": str(PLACE / "lib"), "NVML_STANDIN": str(PLACE / "nvml.txt")}
