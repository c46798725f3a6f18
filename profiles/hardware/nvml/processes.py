"""Which of a GPU's processes belong together: a server and its workers are one program."""

import os
from collections.abc import Iterable
from pathlib import Path


def programs(pids: Iterable[int]) -> list[str]:
    """Return each program's processes as text, such as "123, 124 (tritonserver)".

    Processes of one process group, or of which one descends from the other, are one program.
    Those that this user can't see, or that have ended, are taken for themselves.
    """
    groups: list[set[int]] = []
    for pid in dict.fromkeys(pids):  # in any order: a child's number may be below its parent's
        related = [group for group in groups if any(_is_kin(pid, other) for other in group)]
        groups = [group for group in groups if group not in related]
        groups.append({pid}.union(*related))
    return [_text(group) for group in sorted(groups, key=min)]


def _is_kin(pid: int, other: int) -> bool:
    """Return whether two processes share a process group or one descends from the other."""
    group = _process_group(pid)
    if group is not None and group == _process_group(other):
        return True
    return other in _ancestors(pid) or pid in _ancestors(other)


def _process_group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _ancestors(pid: int) -> list[int]:
    """Return the parents of a process up to, not including, process 1."""
    found: list[int] = []
    while (parent := _parent(found[-1] if found else pid)) > 1:
        found.append(parent)
    return found


def _parent(pid: int) -> int:
    """Return a process's parent, 0 where that can't be read."""
    try:
        # the name in parentheses may hold anything; the parent is the second word after it
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _text(group: set[int]) -> str:
    names = dict.fromkeys(name for pid in sorted(group) if (name := _name(pid)))
    numbers = ", ".join(map(str, sorted(group)))
    return f"{numbers} ({', '.join(names)})" if names else numbers


def _name(pid: int) -> str:
    """Return a process's name, "" where that can't be read."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
