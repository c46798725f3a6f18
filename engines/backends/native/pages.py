"""Maps weights into memory, and says what of a mapping is resident and in huge pages."""

import contextlib
import ctypes
import mmap
import os
import platform
import re
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.artefact.options import WeightPages
from nemotrt.engines.backends.native.library.cores import memory_nodes
from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MAPS = Path("/proc/self/smaps")
MAPPING = re.compile("([0-9a-f]+)-([0-9a-f]+) ")  # the first line of one
# Source: Linux, include/uapi/linux/mempolicy.h and the system calls' tables.
SET_POLICY = {"x86_64": 238, "aarch64": 237}
POLICY_DEFAULT, POLICY_INTERLEAVE = 0, 3
MASK_BITS = 64  # of a set of nodes; no machine that we know has more


@dataclass(frozen=True, slots=True)
class PageUse:
    """What of a part of this process's memory is there."""

    num_bytes: int
    resident_bytes: int
    huge_bytes: int  # of them in huge pages


class UnchangedFile:
    """A file that must stay as it is while it is mapped: what is written to it is read at once."""

    def __init__(self, path: Path) -> None:
        """Note its size and time.

        Raises:
            ArtefactError: it can't be opened.
        """
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ArtefactError(f"{path} can't be mapped: {error}.") from error
        weakref.finalize(self, os.close, self._descriptor)
        self._path, self._told = path, self._now()

    def check(self) -> None:
        """Raise ArtefactError if it was written to."""
        if self._now() != self._told:
            raise ArtefactError(f"{self._path} was written to while in use: start again.")

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns


def map_weights(
    path: Path, pages: WeightPages = WeightPages.LAZY, nodes: Sequence[int] | None = None
) -> npt.NDArray[np.uint8]:
    """Return a file of weights, mapped for reading.

    Args:
        path: the file.
        pages: when it comes into memory.
        nodes: of the memory to interleave over; by default the machine's.

    Raises:
        ArtefactError: the file can't be mapped.
        ConfigError: there is one memory node, or the system can't populate a mapping.
        EnvironmentUnfitError: the system refuses to interleave.
    """
    flags = mmap.MAP_SHARED
    if pages in (WeightPages.POPULATE, WeightPages.INTERLEAVE):
        if not hasattr(mmap, "MAP_POPULATE"):
            raise ConfigError(f"--weight-pages {pages} is for Linux: leave it out.")
        flags |= mmap.MAP_POPULATE
    try:
        with path.open("rb") as file, _interleaved(pages, nodes):
            memory = mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ)
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} can't be mapped: {error}.") from error
    if pages is WeightPages.READAHEAD:
        memory.madvise(mmap.MADV_WILLNEED)
    return np.frombuffer(memory, np.uint8)


@contextlib.contextmanager
def _interleaved(pages: WeightPages, nodes: Sequence[int] | None) -> Iterator[None]:
    """Have pages that this thread brings into memory lie on the nodes in turn.

    What another process has brought there before stays where it is.
    """
    if pages is not WeightPages.INTERLEAVE:
        yield
        return
    found = memory_nodes() if nodes is None else tuple(nodes)
    if nodes is None and len(found) < 2:
        raise ConfigError(
            "--weight-pages interleave is for machines of several memory nodes; this one has "
            f"{len(found) or 'none that it tells'}: take populate."
        )
    _set_policy(POLICY_INTERLEAVE, found)
    try:
        yield
    finally:
        _set_policy(POLICY_DEFAULT, ())


def _set_policy(policy: int, nodes: Sequence[int]) -> None:
    """Say where this thread's new pages lie; raise EnvironmentUnfitError if it may not."""
    number = SET_POLICY.get(platform.machine())
    if number is None or max(nodes, default=0) >= MASK_BITS:
        raise EnvironmentUnfitError("memory nodes are not known on this machine: take populate.")
    mask = ctypes.c_uint64(sum(1 << node for node in nodes))
    library = ctypes.CDLL(None, use_errno=True)
    # the kernel reads one bit less than it is told
    if library.syscall(number, policy, ctypes.byref(mask) if nodes else None, MASK_BITS + 1):
        reason = os.strerror(ctypes.get_errno())
        raise EnvironmentUnfitError(
            f"the system refuses to interleave memory ({reason}): take populate; a container "
            "needs CAP_SYS_NICE."
        )


def has_huge_pages(path: Path = HUGE_PAGES) -> bool:
    """Whether the system gives huge pages to memory that asks for them."""
    return path.is_file() and "[never]" not in path.read_text()


def page_use(parts: Sequence[npt.NDArray[Any]], maps: Path = MAPS) -> PageUse | None:
    """Return what is there of some arrays' mappings; None where the system does not tell.

    The system tells it of whole mappings, which may have neighbours of ours in them.
    """
    if not maps.is_file():
        return None
    spans = [(part.ctypes.data, part.ctypes.data + part.nbytes) for part in parts]
    found = {"Rss": 0, "AnonHugePages": 0, "FilePmdMapped": 0}
    is_ours = False
    for line in maps.read_text().splitlines():
        if head := MAPPING.match(line):
            first, last = (int(word, 16) for word in head.groups())
            is_ours = any(first < end and start < last for start, end in spans)
        name, _, value = line.partition(":")
        if is_ours and name in found:
            found[name] += 1024 * int(value.split()[0])
    total = sum(part.nbytes for part in parts)
    huge = found["AnonHugePages"] + found["FilePmdMapped"]
    return PageUse(total, min(found["Rss"], total), min(huge, total))
