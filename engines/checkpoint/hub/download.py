"""Downloads of a repository into the local cache, by the hub's own client.

Small files come first, weights last, each whole or not at all; a download that was cut goes on
where it was: the client keeps whole files, and asks for the rest of one whose connection broke.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from nemotrt.engines.checkpoint.hub.cache import hub_cache, repository_folder
from nemotrt.engines.checkpoint.hub.faults import endpoint, told_faults
from nemotrt.engines.checkpoint.hub.hub_id import HubId, is_commit
from nemotrt.engines.checkpoint.hub.parts import Part, lacking_weights, small_files
from nemotrt.engines.checkpoint.hub.token import token_released
from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError
from nemotrt.files.writing import make_folder, write_file
from nemotrt.progress import byte_progress, readable_size

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Listing = Mapping[str, int | None]  # sizes in bytes by file name; None where the hub does not say
ETAG = re.compile(r'(?:W/)?"?[A-Za-z0-9_-]+(?:[.:][A-Za-z0-9_-]+)*"?')
HOOKS = ("request", "response")  # of the HTTP client
WEIGHTS_ENDINGS = (".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack")


def download(hub_id: HubId, part: Part, *, quiet: bool) -> Path:
    """Return the snapshot of a repository in the cache, after what it lacks is downloaded.

    Raises:
        ArtefactError: the hub names files or commits that it may not.
        ConfigError: there is no such repository or revision, or it is no safetensors checkpoint.
        EnvironmentUnfitError: no network, no access, or no room.
    """
    headers = _HeaderCheck()
    with _client(hub_id, headers) as api:
        commit, listing = _listing(api, hub_id)
        headers.commit = commit
        _check_safetensors(hub_id, listing, part)
        folder = repository_folder(hub_id.repository)
        fetch = _Fetch(api, hub_id, folder / "snapshots" / commit, listing, quiet)
        fetch.all(small_files(listing, part))
        if part is Part.WEIGHTS:
            fetch.all(lacking_weights(fetch.snapshot))
        if not is_commit(hub_id.revision):
            ref = folder / "refs" / hub_id.revision
            make_folder(ref.parent)
            write_file(ref, commit)
    return fetch.snapshot


def announce(hub_id: HubId, part: Part) -> str:
    """Return what `download` would fetch and how much it is; raises as `download`.

    The hub is asked for its list of files; which shards an index names is not known before.
    """
    from nemotrt.engines.checkpoint.checkpoint import INDEX_FILE, SINGLE_FILE

    with _client(hub_id, _HeaderCheck()) as api:
        commit, listing = _listing(api, hub_id)
    _check_safetensors(hub_id, listing, part)
    snapshot = repository_folder(hub_id.repository) / "snapshots" / commit
    names, bound = small_files(listing, part), ""
    if part is Part.WEIGHTS and (snapshot / INDEX_FILE).is_file():
        names += lacking_weights(snapshot)
    elif part is Part.WEIGHTS and SINGLE_FILE in listing:
        names.append(SINGLE_FILE)
    elif part is Part.WEIGHTS:
        names += [name for name in listing if re.fullmatch(r"[^/]+\.safetensors", name)]
        bound = "at most "
    missing = [name for name in names if not (snapshot / name).is_file()]
    sizes = [listing.get(name) for name in missing]
    told = readable_size(sum(size or 0 for size in sizes))
    if None in sizes:
        told = "of a size that the hub does not say"
    return f"to download {hub_id.repository}@{commit}: {bound}{len(missing)} files, {told}"


class _HeaderCheck:
    """Refuses an answer whose headers, of which the client makes paths, lead elsewhere."""

    def __init__(self) -> None:
        """Know no commit yet."""
        self.commit = ""

    def __call__(self, response: Any) -> None:
        """Check an answer to HEAD, by which the client names a file.

        Raises:
            ArtefactError: it is of another commit, or its ETag is no plain name.
        """
        if response.request.method != "HEAD":
            return
        headers = response.headers
        etag = headers.get("X-Linked-ETag") or headers.get("ETag") or '"none"'
        commit = headers.get("X-Repo-Commit") or self.commit
        if commit != self.commit or not ETAG.fullmatch(etag):
            raise ArtefactError(
                f"the hub answers with commit {commit[:60]!r} and ETag {etag[:80]!r}, where commit "
                f"{self.commit} and a plain name are due; nothing of it was written."
            )


@contextmanager
def _client(hub_id: HubId, check: _HeaderCheck) -> Iterator["HfApi"]:
    """Yield the hub's client, silent, with the user's token; its faults become ours."""
    from huggingface_hub import HfApi, get_session, set_client_factory
    from huggingface_hub.utils import logging

    usual = get_session()
    kind, request_hooks, hooks = type(usual), *(usual.event_hooks[k] for k in HOOKS)

    def client(*more: _HeaderCheck) -> Any:
        told = dict(zip(HOOKS, ([*request_hooks], [*hooks, *more]), strict=True))
        return kind(event_hooks=told, follow_redirects=True, timeout=None)

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    set_client_factory(lambda: client(check))
    try:
        with token_released(), told_faults(hub_id):
            yield HfApi(endpoint=endpoint(), library_name="nemotrt")
    finally:
        logging.set_verbosity(verbosity)
        set_client_factory(client)


def _listing(api: "HfApi", hub_id: HubId) -> tuple[str, Listing]:
    """Return the commit that a revision names, and its files; every name is checked."""
    try:
        info = api.model_info(hub_id.repository, revision=hub_id.revision, files_metadata=True)
        commit = str(info.sha)
        listing = {item.rfilename: item.size for item in info.siblings or ()}
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(
            f"{hub_id}: what answers at the hub's address is not the hub ({type(error).__name__}); "
            "check HF_ENDPOINT and the proxy."
        ) from error
    if not is_commit(commit) or (is_commit(hub_id.revision) and commit != hub_id.revision):
        raise ArtefactError(f"{hub_id}: the hub gives the commit {commit[:60]!r}, which is none.")
    for name in listing:
        path = PurePosixPath(name)
        if not name or path.is_absolute() or {"..", "."} & {*name.split("/")} or "\\" in name:
            raise ArtefactError(
                f"{hub_id} lists a file {name!r}, which lies outside of it; nothing was downloaded."
            )
    return commit, listing


def _check_safetensors(hub_id: HubId, listing: Listing, part: Part) -> None:
    """Raise ConfigError unless the repository is a checkpoint that can be read without pickle."""
    from nemotrt.engines.checkpoint.checkpoint import INDEX_FILE, SINGLE_FILE

    if "config.json" not in listing:
        raise ConfigError(f"{hub_id} has no config.json: it is no transformers checkpoint.")
    if part is Part.WEIGHTS and not {SINGLE_FILE, INDEX_FILE} & set(listing):
        others = [name for name in listing if name.endswith(WEIGHTS_ENDINGS)]
        has = f"its weights are {others[0]}" if others else "it has no weights"
        raise ConfigError(
            f"{hub_id} has no safetensors: {has}. Other formats can run code and are not read; "
            "take another repository of the model, or convert it by save_pretrained."
        )


class _Fetch:
    """One repository's downloads, into one snapshot."""

    def __init__(
        self, api: "HfApi", hub_id: HubId, snapshot: Path, listing: Listing, quiet: bool
    ) -> None:
        """Download nothing yet."""
        self.snapshot = snapshot
        self._api, self._hub_id, self._listing, self._quiet = api, hub_id, listing, quiet

    def all(self, names: list[str]) -> None:
        """Download the files that are not in the snapshot yet, once there is room for them.

        Raises:
            ArtefactError: the repository lacks one of them, or the hub does not say its size.
            EnvironmentUnfitError: the disk is too small.
        """
        missing = [name for name in names if not (self.snapshot / name).is_file()]
        total = sum(map(self._size, missing))
        self._check_room(total)
        what = f"downloading {self._hub_id.repository}"
        with byte_progress(what, total, quiet=self._quiet or not missing) as progress:
            for name in missing:
                self._one(name, progress)

    def _size(self, name: str) -> int:
        """Return the size of a file."""
        if name not in self._listing:
            raise ArtefactError(f"{self._hub_id}: its index names {name}, which it lacks.")
        size = self._listing[name]
        if size is None:
            raise ArtefactError(f"{self._hub_id}: the hub does not say the size of {name}.")
        return size

    def _check_room(self, need: int) -> None:
        """Raise unless the cache's file system takes `need` bytes."""
        cache = hub_cache()
        make_folder(cache)
        free = shutil.disk_usage(cache).free
        if need > free:
            raise EnvironmentUnfitError(
                f"{self._hub_id} needs {readable_size(need)} more, the disk of {cache} has "
                f"{readable_size(free)} free: make room, or set HF_HOME to another disk."
            )

    def _one(self, name: str, progress: Callable[[int], None]) -> None:
        """Download one file to its place in the snapshot."""
        self._api.hf_hub_download(
            self._hub_id.repository,
            name,
            revision=self.snapshot.name,
            cache_dir=hub_cache(),
            tqdm_class=_bar(progress),
        )


def _bar(progress: Callable[[int], None]) -> Any:
    """Return a bar in the client's terms that draws nothing and tells our own."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(disable=True)

        def update(self, n: float | None = 1) -> None:
            progress(int(n or 0))

        # With these the client tells what it received here, and in `update` what it wrote alone.
        def update_transfer(self, n: float) -> None:
            pass

        def set_transfer_postfix_str(self, *args: Any, **more: Any) -> None:
            pass

    return Bar
