"""Whether an engine can be opened here: its files, its weights, and what it asks of the machine."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from nemotrt.engines.artefact.manifest import Manifest, verify_files
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.artefact.weights import (
    check_given,
    check_tensors,
    find_weights,
    same_checkpoint,
)
from nemotrt.engines.backends import registry
from nemotrt.errors import ConfigError, EnvironmentUnfitError, NemotrtError


class State(StrEnum):
    """What a check found."""

    YES = "yes"
    NO = "no"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that opening needs.

    Attributes:
        name: what it is.
        state: whether it is there.
        text: what was found; where it is not there, why, and the cure.
        is_own: whether it is of the engine itself, wherever it lies; else it is of this machine.
    """

    name: str
    state: State
    text: str
    is_own: bool = True


def verdict(checks: list[Check]) -> State:
    """Return whether the engine opens here, as far as that was checked."""
    states = [check.state for check in checks] or [State.UNCHECKED]
    return next((state for state in (State.NO, State.UNCHECKED) if state in states), State.YES)


def check_engine(
    folder: Path, manifest: Manifest, options: OpenOptions, *, verify: bool = True
) -> list[Check]:
    """Return what opening the engine needs, each checked; without `verify` no digest is.

    Raises:
        ArtefactError: a file of the engine itself has changed, or is of a form that is not read.
    """
    if verify:
        verify_files(folder, manifest, trust_seals=options.trust_seals)
    files = f"{len(manifest.files)}, " + ("every SHA-256 verified" if verify else "not verified")
    found = [Check("files", State.YES if verify else State.UNCHECKED, files)]
    backend = registry.get(manifest.backend)
    if backend is None:
        text = f"{manifest.backend} is none of this nemotrt's: {', '.join(registry.names())}."
        return [*found, Check("backend", State.NO, text, is_own=False)]
    if verify:
        backend.check_payload(folder)
    if backend.reads_checkpoint(manifest):
        found += _weights(folder, manifest, options, verify=verify)
    else:
        check_given(folder, manifest, options.checkpoint)
        found.append(Check("weights", State.YES, backend.weights_place))
    needs = backend.needs_here(folder, manifest)
    return [*found, *(_checked(n.name, n.check, "here", is_own=False) for n in needs)]


def _weights(
    folder: Path, manifest: Manifest, options: OpenOptions, *, verify: bool
) -> Iterator[Check]:
    """Yield the checks of an engine's checkpoint; what hangs on one that failed is not checked."""
    rest = ["checkpoint", "fingerprint", "weights"]
    try:
        place = find_weights(folder, manifest, options.checkpoint)
        yield Check(rest.pop(0), State.YES, str(place))
        checkpoint = same_checkpoint(folder, manifest, place)
        yield Check(rest.pop(0), State.YES, f"{manifest.checkpoint.fingerprint[:12]}, the engine's")
        count = len(manifest.weights)
        if verify:
            trust = options.trust_seals
            check_tensors(folder, manifest, checkpoint, place, trust_seals=trust)
            yield Check(rest.pop(0), State.YES, f"{count} tensors, every SHA-256 verified")
        else:
            yield Check(rest.pop(0), State.UNCHECKED, f"{count} tensors, not verified")
    except NemotrtError as error:
        is_own = not isinstance(error, EnvironmentUnfitError)  # a hub id that can't be had here
        yield Check(rest.pop(0), State.NO, error.message, is_own)
    for name in rest:
        yield Check(name, State.UNCHECKED, "not checked, because of the line above")


def _checked(name: str, check: Callable[[], object], text: str, *, is_own: bool) -> Check:
    """Return a check that raises where something is not there."""
    try:
        check()
    except (EnvironmentUnfitError, ConfigError) as error:
        return Check(name, State.NO, error.message, is_own)
    return Check(name, State.YES, text, is_own)
