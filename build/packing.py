"""Makes one folder of an engine and its weights, which opens wherever it is taken."""

from dataclasses import dataclass, replace
from pathlib import Path

from nemotrt.engines.artefact.manifest import (
    CHECKPOINT_FOLDER,
    MANIFEST_FILE,
    Manifest,
    read_manifest,
    verify_files,
    write_manifest,
)
from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions
from nemotrt.engines.artefact.weights import Place, Rule, check_tensors, same_checkpoint
from nemotrt.engines.checkpoint.checkpoint_files import checkpoint_files
from nemotrt.engines.opening import weights_place
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.files.placing import place_files
from nemotrt.files.writing import check_target, make_folder, writing_folder


@dataclass(frozen=True, slots=True)
class Packed:
    """What was packed; `copied_bytes` are those that the disk did not hold already."""

    engine: str
    output: str
    checkpoint: str | None  # None: the engine holds its weights itself
    num_files: int
    num_bytes: int
    copied_bytes: int


def pack_engine(
    engine: Path,
    target: Path,
    options: OpenOptions = AS_BUILT,
    *,
    force: bool = False,
    quiet: bool = False,
) -> Packed:
    """Pack `engine` into the new folder `target`, which appears only when it is whole.

    Raises:
        ArtefactError: a file has changed, or the checkpoint has gone or is another one.
        ConfigError: `target` exists and `force` is false, or is no place for it.
        EnvironmentUnfitError: the disk has no room.
    """
    check_pack(engine, target, options, force=force)
    with writing_folder(target, force=force) as partial:
        packed = pack_into(engine, partial, options, quiet=quiet)
    return replace(packed, output=str(target))


def check_pack(
    engine: Path, target: Path, options: OpenOptions, *, force: bool = False
) -> Place | None:
    """Return where the weights to pack are; raises as `pack_engine`, before any work."""
    check_target(target, force=force)
    place = weights_place(engine, read_manifest(engine), options.checkpoint)
    own = target.resolve()
    for source in (engine, *([] if place is None else [place.path])):
        path = source.resolve()
        if own == path or own.is_relative_to(path) or path.is_relative_to(own):
            raise ConfigError(f"{target} and {source} lie in each other; give another output.")
    check_target(target, force=force, marks=[MANIFEST_FILE])
    return place


def pack_into(
    engine: Path, folder: Path, options: OpenOptions = AS_BUILT, *, quiet: bool = False
) -> Packed:
    """Pack `engine` into the empty `folder`; raises as `pack_engine`."""
    manifest = read_manifest(engine)
    place = weights_place(engine, manifest, options.checkpoint)
    verify_files(engine, manifest, trust_seals=options.trust_seals)
    make_folder(folder)
    own = _own_files(manifest)
    pairs = {folder / file: engine / file for file in own}
    packed = manifest
    if place is not None:
        has_code = bool(manifest.options.get("is_code_trusted"))
        for path in checkpoint_files(place.path, has_code=has_code):
            pairs[folder / CHECKPOINT_FOLDER / path.relative_to(place.path)] = path
        entry = manifest.checkpoint.model_copy(update={"path": CHECKPOINT_FOLDER})
        packed = manifest.model_copy(update={"checkpoint": entry})
    placed = place_files([(source, target) for target, source in pairs.items()], quiet=quiet)
    write_manifest(folder, packed)
    found = read_manifest(folder)
    for file in own:
        if found.files[file] != manifest.files[file]:
            raise ArtefactError(f"{engine}: {file} has changed while it was packed; pack it again.")
    if place is not None:
        inside = same_checkpoint(folder, found, Place(folder / CHECKPOINT_FOLDER, Rule.PACKED))
        check_tensors(engine, manifest, inside, place, trust_seals=options.trust_seals)
    return Packed(
        engine=str(engine),
        output=str(folder),
        checkpoint=None if place is None else str(place.path),
        num_files=len(pairs) + 1,
        num_bytes=placed.num_bytes,
        copied_bytes=placed.copied_bytes,
    )


def _own_files(manifest: Manifest) -> list[str]:
    """Return the engine's files without those of a checkpoint that is packed in it already."""
    is_packed = manifest.checkpoint.path == CHECKPOINT_FOLDER
    head = f"{CHECKPOINT_FOLDER}/"
    return [file for file in manifest.files if not (is_packed and file.startswith(head))]
