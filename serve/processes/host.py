"""What a server asks of its host before anything starts: /proc, and open files enough."""

import resource
from pathlib import Path

from nemotrt.errors import EnvironmentUnfitError

PROC = Path("/proc")
# Source: tried with tritonserver 2.51: with 64 it says nothing and never becomes ready, with 40 it
# can't make its pipes, with 256 it serves. The rest is for connections.
LEAST_FILES = 256


def check_host() -> None:
    """Raise the soft limit of open files to what a server's start takes.

    Raises:
        EnvironmentUnfitError: the hard limit is lower, or there is no /proc.
    """
    if not (PROC / "self/stat").is_file():
        raise EnvironmentUnfitError(
            f"there is no {PROC}, by which a server sees its processes: mount it (mount -t proc "
            f"proc {PROC}; bwrap --proc {PROC})."
        )
    if (most := open_files(LEAST_FILES)) < LEAST_FILES:
        raise EnvironmentUnfitError(
            f"a process may have {most} files open here, and a server's want {LEAST_FILES}: raise "
            "the limit (ulimit -n 4096; docker run --ulimit nofile=4096)."
        )


def open_files(wanted: int) -> int:
    """Raise the soft limit of open files towards `wanted`, and return how many there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if raised > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return raised
