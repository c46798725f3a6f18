"""Where a container sees the weights of an engine that leaves them in its checkpoint."""

import os
from dataclasses import dataclass
from pathlib import Path

from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.artefact.weights import Rule
from nemotrt.engines.checkpoint.checkpoint_files import checkpoint_files
from nemotrt.engines.opening import leaves_weights, weights_place
from nemotrt.errors import ConfigError

CHECKPOINT_MOUNT = "/checkpoint"
CONTAINER_USER = 1000  # of the images, the compose file and the manifests


@dataclass(frozen=True, slots=True)
class WeightsMount:
    """What is mounted at CHECKPOINT_MOUNT, and the checkpoint's path in the container."""

    source: Path
    path: str


def weights_mount(engine: Path, given: str | None) -> WeightsMount | None:
    """Return what to mount beside the engine; None where its folder holds its weights.

    Raises:
        ArtefactError: the checkpoint has gone, or it is another one than the engine was built from.
        ConfigError: its files are links that a container could not follow.
    """
    manifest = read_manifest(engine)
    place = weights_place(engine, manifest, given)
    if place is None or place.rule is Rule.PACKED:
        return None
    path = place.path.absolute()
    has_code = bool(manifest.options.get("is_code_trusted"))
    links = [file for file in checkpoint_files(path, has_code=has_code) if file.is_symlink()]
    if _are_inside(links, path):
        return WeightsMount(path, CHECKPOINT_MOUNT)
    # The hub's cache: snapshots/REVISION has links to ../../blobs.
    if path.parent.name == "snapshots" and _are_inside(links, path.parent.parent):
        return WeightsMount(path.parent.parent, f"{CHECKPOINT_MOUNT}/snapshots/{path.name}")
    raise ConfigError(
        f"{path} has links that lead out of it, such as {links[0].name}, which a container can't "
        f"follow. Make one folder of both, and give that one: nemotrt pack {engine} -o DIR"
    )


def check_readable(folder: Path) -> None:
    """Raise ConfigError where a container's user can't read what is in a folder of the host."""
    if why := closed_to_containers(folder):
        raise ConfigError(why)


def closed_to_containers(folder: Path) -> str:
    """Say what in a folder of the host a container's user can't read, and the cure; or nothing.

    Builds under a strict umask are their user's alone.
    """
    for path in (folder, *folder.rglob("*")):
        try:
            found = path.stat()
        except OSError:
            continue  # a link to nothing: whoever opens it says so
        wanted = 0o5 if path.is_dir() else 0o4
        if found.st_uid != CONTAINER_USER and found.st_mode & wanted != wanted:
            return (
                f"{path} is closed to user {CONTAINER_USER}, as which the container runs: chmod -R "
                f"a+rX {folder}"
            )
    return ""


def claim_path(engine: Path, given: str | None, path: str | None) -> str | None:
    """Return where a claim holds the weights beside the engine; None where the engine holds them.

    Args:
        engine: the engine directory, here.
        given: the checkpoint here, to be held to the engine.
        path: inside the claim; None is the usual one.

    Raises:
        ArtefactError: what is given is another checkpoint than the engine was built from.
        ConfigError: there is a path for an engine that holds its weights.
    """
    manifest = read_manifest(engine)
    if given is not None:
        weights_place(engine, manifest, given)
    if leaves_weights(manifest):
        return path or "checkpoint"
    if path is not None:
        raise ConfigError(f"--checkpoint-path {path!r}: {engine} holds its weights; leave it out.")
    return None


def _are_inside(links: list[Path], folder: Path) -> bool:
    """Whether links lead from inside a folder to inside it, wherever the folder is mounted."""
    root = folder.resolve()
    return all(
        not os.path.isabs(os.readlink(link)) and link.resolve().is_relative_to(root)
        for link in links
    )
