"""Ends a process with the parent that started it, however that parent ends (Linux).

`python -m nemotrt.serve.parent_death PROGRAM ARGS...` runs a program that way.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # Source: linux/prctl.h


def end_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel for signal `number` when the parent's thread that started us ends."""
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before the kernel knew
        os._exit(1)


if __name__ == "__main__":
    end_with_parent()
    os.execv(sys.argv[1], sys.argv[1:])
