"""Seals: what is remembered of a large file's digests, for as long as the file stays the same.

A seal names a file by its size, modification time, inode and device. So a moved or linked file
keeps its seal, and a copied or changed one has none. A byte that changes while size and time stay
is not seen: that is what `--verify` is for.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import pydantic

from nemotrt.errors import ArtefactError, EnvironmentUnfitError
from nemotrt.files.model_file import Strict, json_model
from nemotrt.files.user_cache import user_cache
from nemotrt.files.writing import make_folder, write_file

# Within so long a file may change twice and keep its time: clocks of file systems are coarse.
SETTLED_NS = 2 * 10**9
Span = tuple[int, int]  # first byte and number of bytes
Sha256 = Annotated[str, pydantic.Field(pattern="^[0-9a-f]{64}$")]


class Identity(NamedTuple):
    """What tells that a file is the same."""

    num_bytes: int
    mtime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, file: Path | int) -> "Identity":
        """Return that of a file, by its path or descriptor; of a link, what it leads to."""
        found = os.stat(file)
        return cls(found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev)

    @property
    def is_settled(self) -> bool:
        """Whether any later change gives the file another time."""
        return self.mtime_ns + SETTLED_NS < time.time_ns()

    @property
    def seal(self) -> Path:
        """Where the file's seal is kept; raises EnvironmentUnfitError where nothing can be."""
        name = f"{self.device:x}-{self.inode:x}-{self.num_bytes:x}-{self.mtime_ns:x}.json"
        return user_cache() / "seals" / name


class Seal(Strict):
    """The file of a seal."""

    schema_version: Literal[1] = 1
    identity: Identity
    sha256: dict[str, Sha256]  # by "first byte:number of bytes"


def read_seal(identity: Identity) -> dict[Span, str]:
    """Return the digests that are known of a file; a damaged seal, or another file's, is none."""
    try:
        seal = json_model(Seal, identity.seal)
        spans = {key: tuple(map(int, key.split(":"))) for key in seal.sha256}
    except (ArtefactError, EnvironmentUnfitError, ValueError):
        return {}
    if seal.identity != identity or any(len(span) != 2 for span in spans.values()):
        return {}
    return {(spans[key][0], spans[key][1]): sha256 for key, sha256 in seal.sha256.items()}


def write_seal(identity: Identity, digests: dict[Span, str]) -> None:
    """Remember a file's digests, and forget those of what it was; a full disk costs the seal."""
    sha256 = {f"{first}:{count}": value for (first, count), value in digests.items()}
    with suppress(EnvironmentUnfitError, OSError):
        path = identity.seal
        make_folder(path.parent)
        for old in path.parent.glob(f"{identity.device:x}-{identity.inode:x}-*.json"):
            if old != path:
                os.unlink(old)
        text = Seal(identity=identity, sha256=sha256).model_dump_json()
        write_file(path, text + "\n")
