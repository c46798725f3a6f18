"""SHA-256 of files, or of parts of them: on all cores, and once."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from threading import Event
from typing import NamedTuple

from nemotrt.files.seal import Identity, Span, read_seal, write_seal
from nemotrt.progress import byte_progress

BLOCK_BYTES = 1 << 20  # stays in the second-level cache between the read and the digest
SEAL_BYTES = 1 << 26  # of a file: reading less takes no time that anybody notices
SAID_BYTES = 1 << 30
log = logging.getLogger("nemotrt.files")


class Part(NamedTuple):
    """Some bytes of a file."""

    path: Path
    first: int
    num_bytes: int

    @property
    def span(self) -> Span:
        """Where they lie in the file."""
        return self.first, self.num_bytes


def digests(
    parts: Sequence[Part],
    *,
    what: str = "",
    trust_seals: bool = True,
    stop: Event | None = None,
) -> list[str]:
    """Return the hex digest of each part; setting `stop` ends the work soon.

    What a seal knows of a file is not read again, and large files are sealed. Both hashlib and
    reads leave the interpreter's lock, so threads do.

    Args:
        parts: of existing files.
        what: what is being read, as a bar of progress calls it; without, there is none.
        trust_seals: without, everything is read.
        stop: ends the work; what is returned then is of no use.
    """
    stop = stop or Event()
    files = {path: Identity.of(path) for path in dict.fromkeys(part.path for part in parts)}
    settled = {p: i for p, i in files.items() if i.is_settled and i.num_bytes >= SEAL_BYTES}
    known = {path: read_seal(identity) for path, identity in settled.items()}
    trusted = known if trust_seals else {}
    found = {part: trusted.get(part.path, {}).get(part.span, "") for part in parts}
    unread = sorted((part for part in found if not found[part]), key=lambda part: -part.num_bytes)
    total = sum(part.num_bytes for part in unread)
    is_long = bool(what) and total >= SAID_BYTES
    if is_long:
        log.info("%s: reading %.1f GB", what, total / 1e9)
    bar = byte_progress(what, total, quiet=False) if is_long else nullcontext(lambda count: None)
    with bar as advance, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        try:
            read = pool.map(lambda part: part_digest(part, stop, advance), unread)
            found |= zip(unread, read, strict=True)
        except BaseException:
            stop.set()
            raise
    for path in {part.path for part in unread} & settled.keys():
        if not stop.is_set() and Identity.of(path) == settled[path]:
            own = {part.span: sha256 for part, sha256 in found.items() if part.path == path}
            write_seal(settled[path], known[path] | own)
    return [found[part] for part in parts]


def part_digest(
    part: Part, stop: Event | None = None, advance: Callable[[int], None] = lambda count: None
) -> str:
    """Return the hex digest of the bytes; of nothing useful once `stop` is set."""
    sha = hashlib.sha256()
    buffer = memoryview(bytearray(min(BLOCK_BYTES, part.num_bytes)))
    with part.path.open("rb", buffering=0) as file:
        file.seek(part.first)
        left = part.num_bytes
        while left and not (stop and stop.is_set()):
            count = file.readinto(buffer[: min(left, BLOCK_BYTES)])
            if not count:
                break
            sha.update(buffer[:count])
            left -= count
            advance(count)
    return sha.hexdigest()
