"""`nemotrt doctor`: what this machine can do, and how to get the rest."""

import dataclasses
import json
import os
import platform
import sys
from typing import Any

import click

from nemotrt import needs
from nemotrt.commandline.shared import config_option, json_option
from nemotrt.engines.backends import registry
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.files.memory import memory_bytes
from nemotrt.machine import cpu_flags, rooms
from nemotrt.profiles.hardware.nvml.inventory import Gpu, Inventory, take_inventory


@dataclasses.dataclass(frozen=True, slots=True)
class FoundPackage:
    """A package and, where it is missing, the line that installs it."""

    name: str
    version: str | None
    purpose: str
    install: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class FoundAbility:
    """Something that a user may want to do here; `hint` says what is missing.

    `is_usable` is None where this machine does not tell. What `is_broken` is here, and does not do.
    """

    name: str
    is_usable: bool | None
    is_broken: bool
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
    driver: str | None
    packages: tuple[FoundPackage, ...]
    abilities: tuple[FoundAbility, ...]


def diagnose() -> Diagnosis:
    """Look at the machine; nothing heavy is imported."""
    found = take_inventory()
    return Diagnosis(
        schema_version=1,
        python=platform.python_version(),
        platform=platform.platform(),
        cpu_cores=len(os.sched_getaffinity(0)),
        cpu_flags=cpu_flags(),
        memory_bytes=memory_bytes(),
        gpus=found.gpus,
        gpu_note=found.note,
        driver=found.driver,
        packages=tuple(map(_package, known_packages())),
        abilities=tuple(_ability(wanted, found) for wanted in known_abilities()),
    )


def known_packages() -> tuple[needs.Package, ...]:
    """Return every package that something here needs: the base installation's first."""
    found = [package for ability in known_abilities() for package in ability.packages]
    found += [needs.TOKENIZERS, *(p for extra in needs.EXTRAS.values() for p in extra)]
    return tuple(sorted(dict.fromkeys(found), key=lambda package: bool(package.extra)))


def known_abilities() -> tuple[needs.Ability, ...]:
    """Return all that may be asked of this machine: the backends', then the rest."""
    return (
        *(ability for backend in registry.backends() for ability in backend.abilities),
        needs.Ability("serve with Triton Inference Server", check=_check_triton),
        needs.Ability("serve (OpenAI endpoint)", needs.EXTRAS["serve"], "serve"),
        needs.Ability("trace requests (OpenTelemetry)", needs.EXTRAS["tracing"], "tracing"),
        needs.Ability("measure a server", (needs.HTTPTOOLS, needs.PROMETHEUS)),
        needs.Ability("measure the GPU (NVML)", (needs.NVML,), needs_gpu=True),
        *rooms(),
    )


def _package(wanted: needs.Package) -> FoundPackage:
    """Return a package's version, or what to do."""
    version = wanted.installed()
    is_cured = version is not None and not wanted.fault()
    return FoundPackage(wanted.name, version, wanted.purpose, None if is_cured else wanted.cure)


def _ability(wanted: needs.Ability, found: Inventory) -> FoundAbility:
    """Return whether something can be done here, with all that it lacks."""
    missing, faults = wanted.missing(), wanted.faults()
    unknown: list[str] = []
    if wanted.needs_gpu and not found.gpus:
        missing.append(f"an NVIDIA GPU and its driver ({found.note})")
    elif wanted.needs_gpu:
        _look_at_gpu(wanted, found, missing, faults, unknown)
    try:
        wanted.check()
    except EnvironmentUnfitError as error:
        missing.append(error.message)
    except OSError as error:
        unknown.append(f"it can't be told here: {error}")
    lines = dict.fromkeys([*faults, *missing])
    if lines:
        return FoundAbility(wanted.name, False, not missing, "; ".join(lines))
    return FoundAbility(wanted.name, None if unknown else True, False, "; ".join(unknown))


def _look_at_gpu(
    wanted: needs.Ability,
    found: Inventory,
    missing: list[str],
    faults: list[str],
    unknown: list[str],
) -> None:
    """Add another GPU to what is missing, an old driver to the faults, and what is not told."""
    if wanted.least_driver and not needs.numbers(found.driver or ""):
        unknown.append(f"the driver does not tell its version; {wanted.least_driver} is needed")
    elif wanted.least_driver and needs.numbers(found.driver or "")[0] < wanted.least_driver:
        faults.append(needs.old_driver(str(found.driver), wanted.least_driver))
    if found.capability is None:
        unknown.append("which GPU CUDA sees is not told (is CUDA_VISIBLE_DEVICES right?)")
    elif reason := wanted.unsupported(found.capability):
        missing.append(reason)


def _check_triton() -> None:
    """Raise EnvironmentUnfitError where the Triton runtime or a place for its files is missing."""
    from nemotrt.serve.triton.runtime import find_runtime
    from nemotrt.serve.triton.server import check_places

    find_runtime()
    check_places()


@click.command()
@click.option(
    "--need",
    multiple=True,
    metavar="WORDS",
    help="Exit with code 3 unless the abilities whose lines have these words are all there.",
)
@json_option
@config_option
def doctor(need: tuple[str, ...], as_json: bool) -> None:
    """Say what this machine can do, and what to do about the rest.

    Each line says yes, no or unknown. The exit code is 3 where something that is here can't work,
    such as a package outside its bounds or too old a driver, or where a --need is not met; what was
    never installed is no fault.
    """
    found = diagnose()
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
    else:
        _print(found)
    unmet = [ability for words in need for ability in _named(found, words)]
    unmet = [ability for ability in unmet if not ability.is_usable]
    wrong = [ability for ability in found.abilities if ability.is_broken]
    if unmet or wrong:
        names = "; ".join(dict.fromkeys(f"{a.name}: {a.hint}" for a in (*unmet, *wrong)))
        raise EnvironmentUnfitError(f"this machine can't do all that it should: {names}")


def _named(found: Diagnosis, words: str) -> list[FoundAbility]:
    """Return the abilities that --need means."""
    meant = [ability for ability in found.abilities if words.lower() in ability.name.lower()]
    if not meant:
        names = ", ".join(repr(ability.name) for ability in found.abilities)
        raise ConfigError(f"--need {words!r} names no ability. The abilities are {names}.")
    return meant


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
    if found.gpus:
        facts["driver"] = found.driver or "version not told"
    for name, value in facts.items():
        click.echo(f"{name:10} {value}")
    click.echo()
    for package in found.packages:
        state = package.version or "missing"
        if package.install:
            state += f": {package.install}"
        click.echo(f"{package.name:28} {state:44} {package.purpose}")
    click.echo()
    marks = {True: ("yes    ", "green"), False: ("no     ", "red"), None: ("unknown", "yellow")}
    for ability in found.abilities:
        text, colour = marks[ability.is_usable]
        hint = f": {ability.hint}" if ability.hint else ""
        click.echo(f"{click.style(text, fg=colour)} {ability.name}{hint}")
