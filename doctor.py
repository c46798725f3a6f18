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

from nemotrt.commandline import json_option
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol import needs
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.profiles.hardware.nvml.inventory import Gpu, find_gpus

# What no backend is needed for: before the backends' optional packages, and after them.
BASE = (
    needs.Package("tokenizers", "text to tokens"),
    needs.Package("nvidia-ml-py", "read the GPU's sensors"),
)
OPTIONAL = (
    needs.Package("transformers", "convert tokenizers that have no tokenizer.json", "transformers"),
)


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
    packages = tuple(map(_package, known_packages()))
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


def known_packages() -> tuple[needs.Package, ...]:
    """Return every package that something here needs: the base installation's first."""
    found = [package for backend in registry.backends() for package in backend.packages]
    base = [package for package in found if not package.extra]
    extra = [package for package in found if package.extra]
    return tuple(dict.fromkeys((*base, *BASE, *extra, *OPTIONAL)))


def _package(wanted: needs.Package) -> Package:
    """Return a package's version, or the line that installs it."""
    try:
        return Package(wanted.name, version(wanted.name), wanted.purpose, None)
    except PackageNotFoundError:
        target = f"nemotrt[{wanted.extra}]" if wanted.extra else "nemotrt"
        return Package(wanted.name, None, wanted.purpose, f"pip install '{target}'")


def _abilities(packages: dict[str, Package], has_gpu: bool) -> tuple[Ability, ...]:
    """Return what is usable, with what each ability lacks."""
    wanted = [ability for backend in registry.backends() for ability in backend.abilities]
    wanted += [
        needs.Ability("serve with Triton Inference Server", check=_check_triton),
        needs.Ability("measure the GPU (NVML)", ("nvidia-ml-py",), needs_gpu=True),
    ]
    return tuple(_ability(ability, packages, has_gpu) for ability in wanted)


def _ability(wanted: needs.Ability, packages: dict[str, Package], has_gpu: bool) -> Ability:
    """Return whether something can be done here, with all that it lacks."""
    missing = [packages[p].install or "" for p in wanted.packages if packages[p].version is None]
    missing += ["an NVIDIA GPU and its driver"] if wanted.needs_gpu and not has_gpu else []
    try:
        wanted.check()
    except EnvironmentUnfitError as error:
        missing.append(error.message)
    return Ability(wanted.name, not missing, "; ".join(dict.fromkeys(missing)))


def _check_triton() -> None:
    """Raise EnvironmentUnfitError where the Triton runtime is not installed."""
    from nemotrt.serve.triton.runtime import find_runtime

    find_runtime()


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
@json_option
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
