"""engine.json: what an engine directory is, what it was made from, and the digest of each file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from nemotrt.engines.checkpoint.checkpoint import shards_if_there
from nemotrt.engines.checkpoint.hub.origin import Origin
from nemotrt.engines.model.numerics import BUILT, Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.errors import ArtefactError
from nemotrt.files.digests import Part, digests
from nemotrt.files.model_file import Strict, json_model

MANIFEST_FILE = "engine.json"
CHECKPOINT_FOLDER = "checkpoint"  # inside an engine's folder, where it holds its weights' files
EXECUTED_FILE = "executed.json"  # of executed.py; no part of what was built


class FileEntry(Strict):
    """Size and digest of one file of the engine directory."""

    num_bytes: int
    sha256: str


class WeightInput(Strict):
    """A graph input that is fed from a checkpoint tensor when the engine is opened."""

    tensor: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    is_transposed: bool = False  # the input is the transpose of the tensor


class LimitsEntry(Strict):
    """Limits, as JSON."""

    max_batch_size: int = pydantic.Field(ge=1)
    max_seq_len: int = pydantic.Field(ge=1)
    chunk_tokens: int = pydantic.Field(ge=1)


class CheckpointEntry(Strict):
    """The checkpoint that the engine came from."""

    path: str
    fingerprint: str
    origin: Origin | None = None  # None: not from the hub, or not recorded


class Manifest(Strict):
    """The whole of engine.json."""

    schema_version: Literal[1] = 1
    backend: str
    gpu: str | None
    compute_capability: str | None
    precision: Annotated[
        Precision, pydantic.WithJsonSchema({"enum": [*map(str, BUILT)], "type": "string"})
    ]
    executed: bool  # false where the payload was compiled for a GPU that was not there to run it
    limits: LimitsEntry
    model: dict[str, int | float | str | bool | None]
    checkpoint: CheckpointEntry
    weights: dict[str, WeightInput]
    tools: dict[str, str]
    options: dict[str, str | int | float | bool]
    files: dict[str, FileEntry]

    @pydantic.field_validator("precision")
    @classmethod
    def _is_built(cls, precision: Precision) -> Precision:
        if precision not in BUILT:
            raise ValueError(f"no engine is built in {precision}")
        return precision

    @property
    def digest(self) -> str:
        """A digest of the whole manifest but for where the checkpoint lies or came from.

        An engine is the same wherever it is.
        """
        whole = self.model_dump_json(exclude={"checkpoint": {"path", "origin"}})
        return hashlib.sha256(whole.encode()).hexdigest()[:12]

    @property
    def facts(self) -> dict[str, str | int]:
        """What tells this engine from others, for a result or a server's metrics."""
        return {
            "model": f"{self.model['model_type']} {self.model['layers']}",
            "backend": self.backend,
            "gpu": self.gpu or "none",
            "precision": str(self.precision),
            "checkpoint": self.checkpoint.fingerprint[:12],
            "engine": self.digest,
            **self.limits.model_dump(),
        }

    @property
    def engine_limits(self) -> Limits:
        """The limits as the engine uses them."""
        return Limits(**self.limits.model_dump())


def file_entries(
    folder: Path, names: Sequence[str], *, what: str = "", trust_seals: bool = True
) -> dict[str, FileEntry]:
    """Return the size and SHA-256 of files in a folder; `what` names the read, if it is shown."""
    parts = [Part(folder / name, 0, (folder / name).stat().st_size) for name in names]
    found = digests(parts, what=what, trust_seals=trust_seals)
    return {
        name: FileEntry(num_bytes=part.num_bytes, sha256=sha256)
        for name, part, sha256 in zip(names, parts, found, strict=True)
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write engine.json for the files that are now in `folder`."""
    files = file_entries(folder, sorted(_present(folder, manifest)))
    text = manifest.model_copy(update={"files": files}).model_dump_json(indent=2)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of an engine directory.

    Raises:
        ArtefactError: engine.json is missing, not JSON, or not of this schema.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise ArtefactError(
            f"{folder} is not an engine directory: it has no {MANIFEST_FILE}. Give the folder that "
            "`nemotrt build` or `nemotrt pack` wrote; a container has it where it is mounted."
        )
    return json_model(Manifest, path)


def verify_files(folder: Path, manifest: Manifest, *, trust_seals: bool = True) -> None:
    """Check every file's size and SHA-256 against the manifest.

    A packed engine's weights are not among them: their tensors have digests of their own.

    Raises:
        ArtefactError: a file is missing, changed, or not in the manifest.
    """
    for name in manifest.files:
        if not is_inside(name):
            raise ArtefactError(f"{folder}: {MANIFEST_FILE} names {name!r} outside the folder.")
        if not (folder / name).is_file():
            raise ArtefactError(
                f"{folder}: {name} is missing. Build the engine again, or copy it whole."
            )
    what = f"verifying the files of {folder.name}"
    found = file_entries(folder, [*manifest.files], what=what, trust_seals=trust_seals)
    for name, entry in manifest.files.items():
        if found[name] != entry:
            raise ArtefactError(
                f"{folder}: {name} has changed since the build: SHA-256 {found[name].sha256[:12]}, "
                f"expected {entry.sha256[:12]}. Build the engine again."
            )
    unknown = sorted(_present(folder, manifest) - set(manifest.files))
    if unknown:
        raise ArtefactError(f"{folder}: {unknown[0]} is not part of the engine: move it elsewhere.")


def is_inside(name: str) -> bool:
    """Whether a path that engine.json names lies inside the engine's folder."""
    path = Path(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _present(folder: Path, manifest: Manifest) -> set[str]:
    """Return the names of the files that are in the folder, but for what has its own digests."""
    own = {MANIFEST_FILE, EXECUTED_FILE}
    if manifest.weights and is_inside(manifest.checkpoint.path):
        packed = folder / manifest.checkpoint.path
        own |= {path.relative_to(folder).as_posix() for path in shards_if_there(packed)}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return found - own
