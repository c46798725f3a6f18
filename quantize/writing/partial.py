"""The hidden folder that a run fills, which a later run can take up after a kill."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nemotrt.errors import ConfigError, EnvironmentUnfitError, NemotrtError
from nemotrt.files.writing import check_file, check_target, led_to, make_folder, take_name

JOURNAL_FILE = ".journal.json"
LOCK_FILE = ".lock"


@dataclass(slots=True)
class Partial:
    """A folder being filled: what it will be (`plan`) and which shards are whole."""

    path: Path
    plan: str
    finished: set[str] = field(default_factory=set)

    def mark_finished(self, shard: str) -> None:
        """Note that `shard` is written to its last byte."""
        self.finished.add(shard)
        self.save()

    def save(self) -> None:
        """Replace the journal, so that a kill leaves the old one or the new one."""
        fresh = self.path / f"{JOURNAL_FILE}.new"
        fresh.write_text(json.dumps({"plan": self.plan, "finished": sorted(self.finished)}))
        fresh.replace(self.path / JOURNAL_FILE)


@contextmanager
def filling_folder(
    target: Path,
    plan: str,
    *,
    force: bool = False,
    resume: bool = False,
    sync: bool = False,
    is_file: bool = False,
) -> Iterator[Partial]:
    """Yield the hidden folder beside `target`; on success it takes that name.

    A fault in the input removes the folder; a kill, Ctrl-C or a full disk leaves it for `resume`,
    and what an earlier run finished outlives a disk that is still full. With `sync` all is on the
    disk before the name appears, and the name before this returns.
    `plan` is a digest of all that decides the output's bytes. With `is_file` the target is the file
    of its name in the folder, which goes.

    Raises:
        ConfigError: `target` is in the way, or `resume` finds no unfinished run of this plan.
        EnvironmentUnfitError: another process is filling the folder, or the disk is full.
    """
    (check_file if is_file else check_target)(target, force=force)
    path = target.parent / f".{target.name}.quantizing"
    make_folder(path)
    with (path / LOCK_FILE).open("w") as lock:
        _lock(lock.fileno(), path)
        partial = _take_up(path, plan) if resume else _start(path, plan)
        try:
            yield partial
            if sync:
                _force_to_disk(*path.iterdir(), path)
        except NemotrtError as error:
            if not (isinstance(error, EnvironmentUnfitError) and partial.finished):
                shutil.rmtree(path, ignore_errors=True)
            raise
        except OSError as error:
            raise EnvironmentUnfitError(_what_failed(error, path)) from error
        for name in (JOURNAL_FILE, LOCK_FILE):
            (path / name).unlink(missing_ok=True)
        if is_file:
            (path / target.name).replace(target)
            path.rmdir()
        else:
            take_name(path, led_to(target), force=force)
    if sync:
        _force_to_disk(target.parent)


def _force_to_disk(*paths: Path) -> None:
    """Return once the files and folders would outlive a power failure."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _what_failed(error: OSError, path: Path) -> str:
    """Return one line: what the system said, what is left, what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what, advice = f"no space left on the disk of {path.parent}", "make room, then"
    else:
        place = f" ({error.filename})" if error.filename else ""
        what, advice = f"{error.strerror or error}{place}", "to go on,"
    return f"{what}; {path.name} is kept: {advice} run again with --resume."


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise EnvironmentUnfitError(f"another process is filling {path}; wait for it.") from None


def _start(path: Path, plan: str) -> Partial:
    """Empty the folder and start a journal."""
    for item in path.iterdir():
        if item.name != LOCK_FILE:
            shutil.rmtree(item) if item.is_dir() else item.unlink()
    partial = Partial(path, plan)
    partial.save()
    return partial


def _take_up(path: Path, plan: str) -> Partial:
    """Return the unfinished run in the folder, or a new one if there is none."""
    try:
        journal = json.loads((path / JOURNAL_FILE).read_text())
        old_plan, finished = str(journal["plan"]), set(map(str, journal["finished"]))
    except (OSError, ValueError, KeyError, TypeError):
        return _start(path, plan)
    if old_plan != plan:
        raise ConfigError(
            f"the unfinished run in {path} was of another checkpoint, recipe or option; "
            "run without --resume to start again."
        )
    return Partial(path, plan, finished)
