"""The engine of a checkpoint that is run as it is: built once, into the user's cache."""

import fcntl
import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from nemotrt.build.backend_options import default_backend
from nemotrt.build.engine_builder import DEFAULT_LIMITS, BuildSpec, build_engine, check_spec
from nemotrt.build.limit_options import GivenLimits
from nemotrt.engines.artefact.manifest import file_entries, read_manifest, verify_files
from nemotrt.engines.backends import registry
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
from nemotrt.engines.checkpoint.hub.origin import origin_of
from nemotrt.engines.checkpoint.hub.parts import Part, small_files
from nemotrt.engines.checkpoint.stored.tensor_digest import tensor_digests
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import leaves_weights
from nemotrt.engines.text.tokenizer_config import TEMPLATE_FOLDER
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, EnvironmentUnfitError
from nemotrt.files.user_cache import user_cache
from nemotrt.files.writing import make_folder
from nemotrt.progress import readable_size, stage_printer

FOLDER = "engines"
MAX_NAME_CHARACTERS = 80
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The engine of a checkpoint, as `nemotrt build CHECKPOINT` makes it on this machine."""

    checkpoint: Checkpoint
    spec: BuildSpec
    precision: Precision

    @property
    def num_bytes(self) -> int:
        """About how large it is."""
        refs = [self.checkpoint[name] for name in self.checkpoint.used_names()]
        if self.checkpoint.quant.precision is not None:
            return sum(ref.num_bytes for ref in refs)
        bits = self.precision.weights.format.num_bits
        return sum(math.prod(ref.shape) for ref in refs) * bits // 8

    @property
    def folder(self) -> Path:
        """Where it is kept: a place for all that it depends on.

        Every byte of the checkpoint counts that gets into an engine; seals remember large files.
        """
        path = self.checkpoint.path
        there = (
            file.relative_to(path).as_posix()
            for file in [*path.iterdir(), *(path / TEMPLATE_FOLDER).glob("*")]
        )
        small = file_entries(path, small_files(there, Part.WEIGHTS))
        refs = [self.checkpoint[name] for name in self.checkpoint.used_names()]
        facts = {
            "checkpoint": self.checkpoint.fingerprint(),
            "files": {name: entry.sha256 for name, entry in small.items()},
            "tensors": tensor_digests(refs, what=f"reading the weights in {path.name}"),
            "backend": self.spec.backend,
            "precision": self.precision,
            "limits": asdict(self.spec.limits),
            "version": version("nemotrt"),
        }
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        name = "-".join([_name(path), self.spec.backend, self.precision, key])
        return user_cache() / FOLDER / name

    def __str__(self) -> str:
        """Return what it is, for people."""
        limits = self.spec.limits
        return (
            f"the CPU ({self.spec.backend}) in {self.precision}, {limits.max_batch_size} sequences "
            f"of {limits.max_seq_len} tokens, about {readable_size(self.num_bytes)}"
        )


def cached_engine(
    name: str,
    *,
    rebuild: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
    say: Say = lambda line: None,
) -> Path:
    """Return the engine of a checkpoint; it is built where the cache has none, or a damaged one.

    Args:
        name: a checkpoint: a folder, a hub id, or a built-in model.
        rebuild: build it anyway.
        dry_run: build nothing; what would be built is said.
        quiet: show no progress.
        say: is told what is built or found, and where.

    Raises:
        ConfigError: the name means nothing, or the model is not supported.
        ArtefactError: the checkpoint is damaged.
        EnvironmentUnfitError: it can't be downloaded, or the disk is too small.
    """
    wanted = _wanted(checkpoint_folder(name), say)
    folder = wanted.folder
    if dry_run:
        if rebuild or not _is_whole(folder, wanted):
            say(f"would build {folder} of {name} for {wanted}")
        return folder
    make_folder(folder.parent)
    with _alone(folder, say):
        if not rebuild and _is_whole(folder, wanted):
            say(f"{name}: running the engine {folder}, built before")
            return folder
        say(
            f"{name} is a checkpoint: building {folder} for {wanted}; `nemotrt build` makes one "
            "elsewhere, or for a GPU"
        )
        _check_room(folder, wanted)
        with stage_printer(quiet) as report:
            build_engine(wanted.checkpoint.path, folder, wanted.spec, force=True, report=report)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        say(f"built {folder}: {readable_size(size)}, kept for the next time")
    return folder


def _wanted(source: Path, say: Say) -> Wanted:
    """Return the engine of a checkpoint's folder, checked."""
    checkpoint = open_checkpoint(source)
    for note in checkpoint.notes():
        say(note)
    backend, note = default_backend(None)
    if note:
        say(note)
    spec = BuildSpec(backend, limits=GivenLimits().over(DEFAULT_LIMITS))
    return Wanted(checkpoint, spec, check_spec(checkpoint, spec))


def _name(path: Path) -> str:
    """Return what people call a checkpoint, as part of a file's name."""
    own = next((name for name, folder in TINY_MODELS.items() if folder == path), None)
    origin = origin_of(path)
    name = own or (origin.repository if origin else path.resolve().name)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:MAX_NAME_CHARACTERS] or "checkpoint"


def _is_whole(folder: Path, wanted: Wanted) -> bool:
    """Whether the engine is there as it was built, and its weights are where it looks for them."""
    if not folder.is_dir():
        return False
    try:
        manifest = read_manifest(folder)
        verify_files(folder, manifest)
        registry.find(manifest.backend).check_payload(folder)
    except ArtefactError:
        return False
    place = Path(manifest.checkpoint.path)
    return not leaves_weights(manifest) or place == wanted.checkpoint.path.resolve()


def _check_room(folder: Path, wanted: Wanted) -> None:
    """Raise EnvironmentUnfitError where the disk of the cache is too small."""
    free = shutil.disk_usage(folder.parent).free
    if wanted.num_bytes > free:
        raise EnvironmentUnfitError(
            f"the engine needs about {readable_size(wanted.num_bytes)}, and the disk of "
            f"{folder.parent} has {readable_size(free)} free: make room, set XDG_CACHE_HOME to a "
            "larger disk, or choose a place with `nemotrt build`."
        )


@contextmanager
def _alone(folder: Path, say: Say) -> Iterator[None]:
    """Let one process at a time look for an engine and build it."""
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for the process that builds {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
