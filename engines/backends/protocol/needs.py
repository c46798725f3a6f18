"""What a backend needs of a machine, as `nemotrt doctor` shows it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution, what it is for, and the extra of nemotrt that installs it; "" for none."""

    name: str
    purpose: str
    extra: str = ""


def nothing() -> None:
    """Check nothing."""


@dataclass(frozen=True, slots=True)
class Ability:
    """Something that a user may want to do.

    `packages` are names of the backend's packages; `check` raises EnvironmentUnfitError, with what
    is missing beside them.
    """

    name: str
    packages: tuple[str, ...] = ()
    needs_gpu: bool = False
    check: Callable[[], None] = nothing


@dataclass(frozen=True, slots=True)
class Need:
    """What opening an engine asks of a machine.

    `check` raises EnvironmentUnfitError where it is not there, with the cure.
    """

    name: str
    check: Callable[[], object]


ONNX = Package("onnx", "write the graph")
