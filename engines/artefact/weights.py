"""The weights of an engine that stay in its checkpoint: where they are, and that they are the same.

Only what has a digest in `engine.json` counts: a checkpoint may hold tensors that the engine does
not use.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from nemotrt.engines.artefact.manifest import MANIFEST_FILE, Manifest, is_inside
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
from nemotrt.engines.checkpoint.stored.tensor_digest import tensor_digests
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.errors import ArtefactError, ConfigError

VARIABLE = "NEMOTRT_CHECKPOINT"
MAX_SHOWN = 3
CURE = f"Give the checkpoint that it was built from (--checkpoint PATH or ${VARIABLE})"


class Rule(StrEnum):
    """What says where a checkpoint is; the first that says anything holds."""

    OPTION = "--checkpoint"
    PACKED = "nemotrt pack"  # inside the engine's own folder
    VARIABLE = f"${VARIABLE}"
    BUILT = MANIFEST_FILE  # where it was when the engine was built


class Place(NamedTuple):
    """A folder, and the rule that says so."""

    path: Path
    rule: Rule

    def __str__(self) -> str:
        """Return both, for people."""
        return f"{self.path} (by {self.rule})"


def find_weights(folder: Path, manifest: Manifest, given: str | None = None) -> Place:
    """Return where the checkpoint of an engine is; nothing of it is read yet.

    Raises:
        ConfigError: what is `given`, or the variable, is no checkpoint.
        ArtefactError: it has gone from where the engine says that it is.
    """
    told = Path(manifest.checkpoint.path)
    rule = Rule.BUILT if told.is_absolute() else Rule.PACKED
    if given is not None:
        return _named(given, Rule.OPTION)
    if rule is Rule.BUILT and (variable := os.environ.get(VARIABLE)):
        return _named(variable, Rule.VARIABLE)
    if rule is Rule.PACKED and not is_inside(str(told)):
        raise ArtefactError(f"{folder}: {MANIFEST_FILE} names {str(told)!r} outside the folder.")
    place = Place(folder / told, rule)
    if not place.path.is_dir():
        where = place.path
        raise ArtefactError(f"{where}, which holds the engine's weights, is missing. {CURE}.")
    return place


def _named(name: str, rule: Rule) -> Place:
    """Return the checkpoint that a user names, by which rule."""
    try:
        return Place(checkpoint_folder(name), rule)
    except ConfigError as error:
        raise ConfigError(f"{rule}: {error.message}") from None


def open_weights(folder: Path, manifest: Manifest, options: OpenOptions) -> Checkpoint:
    """Return the checkpoint with an engine's weights, every byte of them verified.

    Raises:
        ConfigError: what is given is no checkpoint.
        ArtefactError: it has gone, it has changed since the build, or it is another one.
    """
    place = find_weights(folder, manifest, options.checkpoint)
    checkpoint = same_checkpoint(folder, manifest, place)
    check_tensors(folder, manifest, checkpoint, place, trust_seals=options.trust_seals)
    return checkpoint


def same_checkpoint(folder: Path, manifest: Manifest, place: Place) -> Checkpoint:
    """Return the checkpoint at `place` if its fingerprint is the engine's; no weight is read.

    Raises:
        ArtefactError: it is another one; the message says what differs.
    """
    checkpoint = open_checkpoint(place.path)
    if checkpoint.fingerprint() != manifest.checkpoint.fingerprint:
        raise _refusal(folder, place, _difference(folder, manifest, checkpoint))
    return checkpoint


def check_tensors(
    folder: Path, manifest: Manifest, checkpoint: Checkpoint, place: Place, *, trust_seals: bool
) -> None:
    """Raise ArtefactError unless each tensor that the engine uses has the bytes that it had."""
    if not manifest.weights:
        raise ArtefactError(
            f"{folder}: {MANIFEST_FILE} has no digests of the weights, as those of earlier "
            "releases; build the engine again."
        )
    wanted = {entry.tensor: entry.sha256 for entry in manifest.weights.values()}
    found = tensor_digests(
        [checkpoint[name] for name in wanted],
        what=f"verifying the weights in {place.path.name}",
        trust_seals=trust_seals,
    )
    pairs = zip(wanted.items(), found, strict=True)
    if other := [name for (name, sha256), digest in pairs if digest != sha256]:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        what = f"tensor {other[0]}{more} of {len(wanted)} has other bytes"
        raise _refusal(folder, place, what)


def check_given(folder: Path, manifest: Manifest, given: str | None) -> None:
    """Raise ArtefactError if what is given to an engine that holds its weights is not theirs.

    It can't change what such an engine computes; it can be the wrong one.
    """
    if given is not None:
        same_checkpoint(folder, manifest, find_weights(folder, manifest, given))


def _refusal(folder: Path, place: Place, what: str) -> ArtefactError:
    """Return the error for a checkpoint that is not the engine's."""
    if place.rule in (Rule.OPTION, Rule.VARIABLE):
        head = f"{place.rule} {place.path} is not the checkpoint that {folder} was built from"
    else:
        head = f"{place.path} has changed since the build of {folder}"
    return ArtefactError(f"{head}: {what}. {CURE}, or build the engine again.")


def _difference(folder: Path, manifest: Manifest, checkpoint: Checkpoint) -> str:
    """Return what tells a checkpoint from the engine's, as far as the engine knows its own."""
    if (folder / "config.json").is_file():
        ours, theirs = _flat_config(read_model_config(folder)), _flat_config(checkpoint.config)
        other = [
            f"{name} is {_short(theirs.get(name))}, the engine's {_short(ours.get(name))}"
            for name in ours | theirs
            if ours.get(name) != theirs.get(name)
        ]
        if other:
            return "; ".join(other[:MAX_SHOWN])
    for entry in manifest.weights.values():
        if entry.tensor not in checkpoint:
            return f"it has no tensor {entry.tensor}"
    found, wanted = checkpoint.fingerprint()[:12], manifest.checkpoint.fingerprint[:12]
    return (
        "the same model, but another config.json, or tensors of other types or in other places "
        f"(fingerprint {found}, the engine's {wanted})"
    )


def _flat_config(config: ModelConfig) -> dict[str, Any]:
    """Return a configuration's values by dotted name."""
    return dict(_flat(dataclasses.asdict(config))) | {"layers": config.pattern}


def _flat(values: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a nested mapping's values by dotted name."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{head}{name}.")
        else:
            yield f"{head}{name}", value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
