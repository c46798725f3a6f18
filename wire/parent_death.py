"""Runs a program whose whole process group ends with the process that started it.

`python parent_death.py PROGRAM ARGS...`, as the leader of a process group and with a pipe for
standard input whose other end the starter alone holds: that end closes however the starter ends. A
watcher in the group waits for it, since nothing else reaches all of the group: a parent death
signal goes to one process, and a thread of Triton's stub may wait for its GIL forever.
"""

import os
import signal
import sys

LIFELINE = 0  # standard input


def kill_group_with_starter() -> None:
    """Leave a watcher in this process group, which is no child of ours; returns in the caller."""
    if os.getpgrp() != os.getpid():
        sys.exit("parent_death: must lead a process group of its own.")
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    if os.fork() == 0:
        _watch()
    os._exit(0)


def _watch() -> None:
    """Wait for the end of the pipe, then kill the group, ourselves among it."""
    os.chdir("/")
    os.closerange(LIFELINE + 1, os.sysconf("SC_OPEN_MAX"))  # others wait for these to close
    while os.read(LIFELINE, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    kill_group_with_starter()
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), LIFELINE)
    os.execv(sys.argv[1], sys.argv[1:])
