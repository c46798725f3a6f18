"""A child's whole process group ends with the process that started it, however that ends."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from nemotrt.serve.processes.child_process import ChildProcess

# A leader and its child, which no signal but SIGKILL ends.
PAIR = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
child = os.fork()
if child:
    print(os.getpid(), child, flush=True)
time.sleep(600)
"""
STARTER = """
import pathlib, sys, time
from nemotrt.serve.processes.child_process import ChildProcess
child = ChildProcess([sys.executable, "-c", sys.argv[1]], pathlib.Path(sys.argv[2]), {})
time.sleep(600)
"""


def pair(log: Path) -> list[psutil.Process]:
    """Return the leader and its child, once they have said who they are."""
    until_s = time.monotonic() + 30
    while not (log.exists() and log.read_text().endswith("\n")):
        assert time.monotonic() < until_s
        time.sleep(0.01)
    return [psutil.Process(int(pid)) for pid in log.read_text().split()]


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_killed_starter_takes_the_group_with_it(tmp_path, is_stopped) -> None:
    log = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", STARTER, PAIR, str(log)]) as starter:
        processes = pair(log)
        if is_stopped:  # what watches must not need the watched to run
            for process in processes:
                process.suspend()
        starter.kill()
    assert not psutil.wait_procs(processes, timeout=10)[1]


def test_a_process_that_outlives_its_leader_is_killed_with_the_group(tmp_path) -> None:
    child = ChildProcess([sys.executable, "-c", PAIR], tmp_path / "log", {})
    leader, orphan = pair(tmp_path / "log")
    assert leader.pid == child.pid
    leader.kill()
    assert child.wait(10) and child.exit_code == -9 and orphan.is_running()
    child.kill_group()
    assert not psutil.wait_procs([orphan], timeout=10)[1]


def test_the_program_has_an_empty_standard_input_and_its_own_exit_code(tmp_path) -> None:
    code = "import sys; print(repr(sys.stdin.read())); sys.exit(7)"
    child = ChildProcess([sys.executable, "-c", code], tmp_path / "log", {})
    assert child.wait(10) and child.exit_code == 7
    assert (tmp_path / "log").read_text() == "''\n"
    child.kill_group()
