"""What a checkpoint's name means: a folder, a built-in model, or a repository of the hub."""

from pathlib import Path

from nemotrt.commandline.shared import is_asked
from nemotrt.engines.checkpoint.hub.cache import (
    hub_cache,
    is_offline,
    repository_of,
    snapshot,
    snapshot_in,
)
from nemotrt.engines.checkpoint.hub.hub_id import FORM, MAIN, HubId, parse_hub_id, split_revision
from nemotrt.engines.checkpoint.hub.parts import Part, lacking
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import UNSET, ArtefactError, ConfigError, EnvironmentUnfitError


def checkpoint_folder(name: str, part: Part = Part.WEIGHTS, *, quiet: bool = False) -> Path:
    """Return the folder that `name` means; what the cache lacks of a repository is downloaded.

    A command's own --dry-run, --quiet and --json hold here too, however deep it asks.

    Args:
        name: a path of a folder or of a GGUF file, a shipped tiny model's name, or
            OWNER/NAME[@REVISION] on the hub. A path that exists wins;
            `models--OWNER--NAME[@REVISION]` is such a folder of a cache.
        part: how much of a repository is needed.
        quiet: draw no progress bar.

    Raises:
        ArtefactError: a folder of a cache is not whole.
        ConfigError: the name means nothing, or there is no such repository or revision.
        EnvironmentUnfitError: it is not in the cache and can't be downloaded; with --dry-run the
            message says what would be.
    """
    meant = meaning(name, part)
    if isinstance(meant, Path):
        return meant
    found = snapshot(meant)
    if found is not None and not lacking(found, Part.WEIGHTS):
        return found
    if not is_offline() and not is_asked("dry_run"):
        from nemotrt.engines.checkpoint.hub.download import download

        return download(meant, part, quiet=quiet or is_asked("quiet", "as_json"))
    if found is not None and not lacking(found, part):
        return found
    raise EnvironmentUnfitError(_not_cached(meant, found, part))


def meaning(name: str, part: Part) -> Path | HubId:
    """Return the folder or the repository that `name` means; the network is not asked.

    A folder of a cache must hold the `part`.

    Raises:
        ArtefactError: a folder of a cache is not whole.
        ConfigError: the name means nothing.
    """
    path = Path(name)
    if name and _is_gguf(path):
        from nemotrt.engines.checkpoint.gguf.folder import gguf_folder, lone_gguf  # numpy

        return gguf_folder(path if path.is_file() else lone_gguf(path) or path)
    if name and path.is_dir():
        return _whole(path, MAIN, part) if repository_of(path) else path
    if name in TINY_MODELS:
        return TINY_MODELS[name]
    before, _, revision = name.rpartition("@")
    if before and repository_of(Path(before)):
        return _whole(Path(before), split_revision(f"@{revision}")[1], part)
    if not path.exists() and (hub_id := parse_hub_id(name)):
        return hub_id
    mounted = " A container has the folder where it is mounted." if path.is_absolute() else ""
    unset = "" if name else UNSET
    raise ConfigError(
        f"checkpoint {name!r} is not a folder{unset}; give a Hugging Face folder, a GGUF file, a "
        f"repository of the hub ({FORM}), or a built-in model: {', '.join(TINY_MODELS)}.{mounted}"
    )


def _is_gguf(path: Path) -> bool:
    """Whether a path is a GGUF file, or a folder of one that has no config.json."""
    if path.suffix == ".gguf" and path.is_file():
        return True
    return path.is_dir() and not (path / "config.json").is_file() and any(path.glob("*.gguf"))


def _whole(folder: Path, revision: str, part: Part) -> Path:
    """Return the snapshot in a `models--OWNER--NAME` folder.

    Raises:
        ArtefactError: it lacks files.
    """
    found = snapshot_in(folder, revision)
    if missing := lacking(found, part):
        name = HubId(str(repository_of(folder)), found.name)
        raise ArtefactError(
            f"{found} lacks {_listed(missing)}: give {name} to complete it, or that folder itself "
            "to take it as it is."
        )
    return found


def _not_cached(hub_id: HubId, found: Path | None, part: Part) -> str:
    """Return why a repository can't be had without the network."""
    why = "the network is off: run it once without --offline and HF_HUB_OFFLINE"
    if not is_offline():
        why = f"--dry-run downloads nothing: leave it out, {_to_download(hub_id, part)}"
    if found is None:
        return f"{hub_id} is no folder here, and is not in the cache {hub_cache()}; {why}."
    missing = _listed(lacking(found, part))
    return (
        f"{hub_id} is not whole in the cache: {found} lacks {missing}; {why}, or give that folder "
        "to take it as it is."
    )


def _to_download(hub_id: HubId, part: Part) -> str:
    """Return what a run would download; the hub is asked for its list of files alone.

    Raises:
        ConfigError: there is nothing of that name to download.
    """
    from nemotrt.engines.checkpoint.hub.download import announce

    try:
        return announce(hub_id, part)
    except EnvironmentUnfitError as error:
        return f"to download what the hub does not list here ({error.message.rstrip('.')})"


def _listed(names: list[str]) -> str:
    """Return the first of some names, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more files"
