"""How a process that prepares others' work lets the event loop and the engine go first."""

import contextlib
import os
from pathlib import Path

NICENESS = 19
AUTOGROUP = Path("/proc/self/autogroup")  # sched(7); absent where the kernel has no such groups


def give_way() -> None:
    """Take the least share of the processor, from the other processes of a server too.

    Linux shares it first among sessions, where it groups by them, and a niceness counts within a
    session alone: so the process gets one of its own, and the session the niceness.
    """
    os.nice(NICENESS)
    with contextlib.suppress(PermissionError):  # it leads its process group: it has a session
        os.setsid()
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text(str(NICENESS))
