"""`nemotrt doctor`: what this machine can do, which backends are usable, how to get the rest."""

import dataclasses
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.profiles.nvml.inventory import Gpu, find_gpus

# distribution -> what it is for; the extra that installs it, "" for the base installation
PACKAGES = {
    "onnxruntime": ("run engines on the CPU", ""),
    "onnx": ("write the graph", ""),
    "tokenizers": ("text to tokens", ""),
    "nvidia-ml-py": ("read the GPU's sensors", ""),
    "tensorrt-rtx-cu13-bindings": ("compile TensorRT plans without a GPU", "rtx"),
    "tensorrt-rtx-cu13-libs": ("compile TensorRT plans without a GPU", "rtx"),
    "tensorrt": ("compile and run TensorRT plans on the GPU host", "tensorrt"),
    "cuda-python": ("run TensorRT plans on the GPU host", "tensorrt"),
    "tensorrt-llm": ("serve with TensorRT-LLM on the GPU host", "tensorrt-llm"),
    "transformers": ("convert tokenizers that have no tokenizer.json", "transformers"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Package:
    """A package and, where it is missing, the line that installs it."""

    name: str
    version: str | None
    purpose: str
    install: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Ability:
    """Something that a user may want to do here; `hint` says what is missing."""

    name: str
    is_usable: bool
    hint: str


@dataclasses.dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that doctor found."""

    schema_version: int
    python: str
    platform: str
    cpu_cores: int
    cpu_flags: tuple[str, ...]
    memory_bytes: int
    gpus: tuple[Gpu, ...]
    gpu_note: str
    packages: tuple[Package, ...]
    abilities: tuple[Ability, ...]


def diagnose() -> Diagnosis:
    """Look at the machine; nothing heavy is imported."""
    packages = tuple(_package(name) for name in PACKAGES)
    gpus, note = find_gpus()
    return Diagnosis(
        schema_version=1,
        python=platform.python_version(),
        platform=platform.platform(),
        cpu_cores=len(os.sched_getaffinity(0)),
        cpu_flags=_cpu_flags(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=gpus,
        gpu_note=note,
        packages=packages,
        abilities=_abilities({p.name: p for p in packages}, bool(gpus)),
    )


def _package(name: str) -> Package:
    purpose, extra = PACKAGES[name]
    try:
        return Package(name, version(name), purpose, None)
    except PackageNotFoundError:
        target = f"nemotrt[{extra}]" if extra else "nemotrt"
        return Package(name, None, purpose, f"pip install '{target}'")


def _abilities(packages: dict[str, Package], has_gpu: bool) -> tuple[Ability, ...]:
    """Return what is usable, with what each ability lacks."""

    def needs(name: str, *required: str, gpu: bool = False, also: str = "") -> Ability:
        missing = [packages[p].install or "" for p in required if packages[p].version is None]
        missing += ["an NVIDIA GPU and its driver"] if gpu and not has_gpu else []
        missing += [also] if also else []
        return Ability(name, not missing, "; ".join(dict.fromkeys(missing)))

    return (
        needs("build and run on the CPU (onnxruntime)", "onnx", "onnxruntime"),
        needs("run faster on the CPU (native)", also=_missing_native()),
        needs("choose tokens in compiled code, not by NumPy", also=_missing_native()),
        needs(
            "compile plans for A10G, A100 here (tensorrt)",
            "onnx",
            "tensorrt-rtx-cu13-bindings",
            "tensorrt-rtx-cu13-libs",
        ),
        needs("run plans here (tensorrt)", "cuda-python", gpu=True),
        needs(
            "choose tokens on the GPU (tensorrt)",
            "cuda-python",
            gpu=True,
            also=_missing_kernel_compiler(),
        ),
        needs(
            "compile plans with Mamba plugins here (tensorrt)",
            "tensorrt",
            "cuda-python",
            gpu=True,
            also=_missing_kernel_compiler(),
        ),
        needs("serve with TensorRT-LLM here", "tensorrt-llm", gpu=True),
        needs("export for TensorRT Edge-LLM here (edge-llm)", also=_missing_edge_llm()),
        needs("serve with Triton Inference Server", also=_missing_triton()),
        needs("measure the GPU (NVML)", "nvidia-ml-py", gpu=True),
    )


def _missing_native() -> str:
    """Return what the native engine lacks, "" if its library is there or can be compiled."""
    from nemotrt.engines.native.library import check_available

    try:
        check_available()
    except EnvironmentUnfitError as error:
        return error.message
    return ""


def _missing_kernel_compiler() -> str:
    """Return what compiling the Mamba plugins' kernels lacks, "" for nothing."""
    from nemotrt.engines.plugins.kernel_image import check_compiler

    try:
        check_compiler()
    except EnvironmentUnfitError as error:
        return error.message
    return ""


def _missing_edge_llm() -> str:
    """Return what exporting to Edge-LLM lacks, "" if its exporter is there."""
    from nemotrt.engines.edge_llm.exporter import find_exporter

    try:
        find_exporter()
    except EnvironmentUnfitError as error:
        return error.message
    return ""


def _missing_triton() -> str:
    """Return what the Triton runtime lacks, "" if it is there."""
    from nemotrt.serve.triton_runtime import find_runtime

    try:
        find_runtime()
    except EnvironmentUnfitError as error:
        return error.message
    return ""


def _cpu_flags() -> tuple[str, ...]:
    """Return the vector extensions that matter, of those that the CPU has."""
    wanted = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return ()
    flags = next(
        (
            line.split(":", 1)[1].split()
            for line in path.read_text().splitlines()
            if "flags" in line
        ),
        [],
    )
    return tuple(flag for flag in wanted if flag in flags)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the diagnosis as one JSON object.")
def doctor(as_json: bool) -> None:
    """Say what this machine can do and which backends are usable."""
    diagnosis = diagnose()
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(diagnosis)))
        return
    _print(diagnosis)


def _print(found: Diagnosis) -> None:
    """Print the diagnosis for a person."""
    facts: dict[str, Any] = {
        "python": f"{found.python} ({sys.executable})",
        "platform": found.platform,
        "cpu": f"{found.cpu_cores} cores, {' '.join(found.cpu_flags) or 'no known extension'}",
        "memory": f"{found.memory_bytes / 2**30:.1f} GiB",
        "gpu": "; ".join(map(str, found.gpus)) + (f" ({found.gpu_note})" if found.gpu_note else "")
        if found.gpus
        else f"none ({found.gpu_note})",
    }
    for name, value in facts.items():
        click.echo(f"{name:10} {value}")
    click.echo()
    for package in found.packages:
        state = package.version or f"missing: {package.install}"
        click.echo(f"{package.name:28} {state:44} {package.purpose}")
    click.echo()
    for ability in found.abilities:
        mark = click.style("yes", fg="green") if ability.is_usable else click.style("no ", fg="red")
        click.echo(f"{mark}  {ability.name}" + (f": {ability.hint}" if ability.hint else ""))
