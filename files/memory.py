"""The memory of this machine, or of the container that this is: all of it, and what is free.

Linux says so in files; a container's are those of the second version of control groups.
"""

import os
from pathlib import Path

INFO = Path("/proc/meminfo")
MAPS = Path("/proc/self/maps")
GROUP = Path("/sys/fs/cgroup")  # of a container, or of a service


def memory_bytes() -> int:
    """Return the memory that this process may have."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(size, _group_bytes("memory.max", size))


def available_bytes() -> int | None:
    """Return what can be had without swapping, None where Linux does not say.

    Files that are only held for the next reader count as free.
    """
    free_kib = _fields(INFO).get("MemAvailable:")
    if free_kib is None:
        return None
    free = free_kib << 10
    limit = _group_bytes("memory.max", free)
    stat = _fields(GROUP / "memory.stat")
    cached = stat.get("active_file", 0) + stat.get("inactive_file", 0)
    return min(free, max(limit - _group_bytes("memory.current", 0) + cached, 0))


def mapped_bytes() -> int:
    """Return how much of files this process has in its address space, read yet or not."""
    try:
        lines = [line.split() for line in MAPS.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return 0
    ranges = [line[0].split("-") for line in lines if line[4] != "0"]  # the inode of a file
    return sum(int(end, 16) - int(start, 16) for start, end in ranges)


def _group_bytes(name: str, otherwise: int) -> int:
    """Return a number of the control group, `otherwise` where it has none."""
    try:
        return int((GROUP / name).read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or "max"
        return otherwise


def _fields(path: Path) -> dict[str, int]:
    """Return the numbers of a file that has a name and a number on each line."""
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}
