"""Log files are put aside when full, lose nothing but what is dropped, and outlive a full disk."""

import errno
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.serve.logs.files import LogFile, aside, copier, files_of, remove_logs
from nemotrt.serve.logs.options import MIB, LogFiles, LogFormat, LogLevel, LogOptions
from nemotrt.serve.logs.outlet import Outlet, start_logging
from nemotrt.serve.processes.child_process import ChildProcess
from nemotrt.serve.supervision.log_follower import LogFollower


def limits(max_bytes: int, num_files: int) -> LogFiles:
    return LogFiles(log_max_mib=max_bytes / MIB, log_files=num_files)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 30), max_size=40), st.integers(20, 60), st.integers(0, 3))
def test_the_last_lines_are_there_in_their_order(
    tmp_path_factory, sizes: list[int], max_bytes: int, num_files: int
) -> None:
    path = tmp_path_factory.mktemp("logs") / "engine.log"
    file = LogFile(path, limits(max_bytes, num_files))
    lines = [f"{i}".ljust(size, ".").encode() + b"\n" for i, size in enumerate(sizes)]
    for line in lines:
        file.write(line)
    file.close()
    found = files_of(path)
    assert len(found) <= num_files + 1
    kept = b"".join(p.read_bytes() for p in found).splitlines(keepends=True)
    assert kept == lines[len(lines) - len(kept) :]
    for one in found:
        assert one.stat().st_size <= max(max_bytes, max(map(len, lines)))
        assert one.stat().st_mode & 0o077 == 0
    if sum(map(len, lines)) <= max_bytes:
        assert kept == lines
    remove_logs(path)
    assert list(path.parent.iterdir()) == []


def test_a_file_that_is_there_already_counts(tmp_path) -> None:
    path = tmp_path / "engine.log"
    path.write_bytes(b"x" * 50)
    LogFile(path, limits(60, 1)).write(b"a line of twenty....\n")
    assert path.stat().st_size == 71  # it was not known to be full before it was opened
    file = LogFile(path, limits(60, 1))
    for _ in range(2):
        file.write(b"new\n")
    assert path.read_bytes() == b"new\n" and aside(path, 1).read_bytes().endswith(b"new\n")


def test_a_follower_reads_on_where_a_log_has_been_put_aside(tmp_path) -> None:
    path = tmp_path / "engine.log"
    file = LogFile(path, limits(40, 5))
    follower, seen = None, []
    for number in range(60):
        file.write(f"line {number}\n".encode())
        if number == 20:
            follower = LogFollower([path])  # which begins with what is aside by then
        if follower is not None and number % 3 == 0:
            seen += list(follower.lines())
    assert follower is not None
    seen += list(follower.lines())
    assert seen[-1] == "engine | line 59"
    numbers = [int(line.split()[-1]) for line in seen]
    assert numbers == list(range(numbers[0], 60)) and numbers[0] <= 1


def test_objects_are_shown_as_they_are(tmp_path) -> None:
    path = tmp_path / "front.log"
    copier("front", LogFile(path, LogFiles()), LogOptions(log_format=LogFormat.JSON))(b"hello\n")
    [line] = LogFollower([path]).lines()
    assert json.loads(line)["message"] == "hello"


def test_a_disk_that_is_full_tears_one_line_and_no_other(tmp_path, monkeypatch) -> None:
    path, real = tmp_path / "engine.log", os.write
    room = 10

    def scarce(descriptor: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(descriptor, data[:room])
        room -= written
        return written

    file = LogFile(path, LogFiles())
    monkeypatch.setattr(os, "write", scarce)
    for line in (b"first\n", b"second\n", b"third\n"):
        file.write(line)
    monkeypatch.undo()
    file.write(b"fourth\n")
    assert path.read_bytes() == b"first\nseco\nfourth\n"


@pytest.mark.parametrize("call", ["open", "replace"])
def test_each_file_operation_that_fails_costs_lines_alone(tmp_path, monkeypatch, call) -> None:
    path = tmp_path / "engine.log"
    file = LogFile(path, limits(12, 1))

    def refuse(*arguments: object, **more: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    for _ in range(2):
        file.write(b"12345\n")
    monkeypatch.setattr(os, call, refuse)
    for _ in range(3):
        file.write(b"lost?\n")
    monkeypatch.undo()
    file.write(b"after\n")
    file.close()
    assert path.read_bytes().endswith(b"after\n")
    assert all(line in (b"12345", b"lost?", b"after") for line in path.read_bytes().splitlines())


TALK = """
import os, sys
print("from print")
os.write(2, b"half a line, ")
os.write(2, b"and its rest\\n")
sys.stderr.write("no end")
"""


def test_all_that_a_process_writes_is_copied_line_by_line(tmp_path) -> None:
    path = tmp_path / "x.log"
    copy = copier("x", LogFile(path, LogFiles()), LogOptions(log_format=LogFormat.JSON))
    child = ChildProcess([sys.executable, "-ISc", TALK], path, {}, copy=copy)
    assert child.wait(30)
    assert "and its rest" in str(child.failure())  # the last lines, though a thread copies them
    child.kill_group()
    told = [json.loads(line)["message"] for line in path.read_text().splitlines()]
    assert sorted(told) == ["half a line, and its rest", "no endfrom print"] or set(told) == {
        "from print",
        "half a line, and its rest",
        "no end",
    }


def test_nobody_waits_for_a_log_that_nobody_reads() -> None:
    reading, writing = os.pipe()
    outlet = Outlet(writing, max_lines=8)
    outlet.setFormatter(logging.Formatter("%(message)s"))
    try:
        for number in range(2000):
            told = {"msg": f"line {number}".ljust(1000, "."), "levelno": 20}
            outlet.emit(logging.makeLogRecord(told))
        found: list[bytes] = []
        reader = threading.Thread(target=text_of, args=(reading, found), daemon=True)
        reader.start()
        outlet.flush()
        outlet.emit(logging.makeLogRecord({"msg": "after", "levelno": 20}))
        outlet.flush()
    finally:
        os.close(writing)
    reader.join(10)
    lines = b"".join(found).decode().splitlines()
    assert lines[0].startswith("line 0.") and lines[-1] == "after"
    kept = sum(line.startswith("line ") for line in lines)
    lost = [int(line.split()[0]) for line in lines if "lines of this log are lost" in line]
    assert lost and sum(lost) + kept == 2000


def text_of(descriptor: int, found: list[bytes]) -> None:
    while data := os.read(descriptor, 1 << 16):
        found.append(data)
    os.close(descriptor)


def test_a_level_holds_for_ours_and_for_libraries(monkeypatch) -> None:
    root, own = logging.getLogger(), logging.getLogger("nemotrt")
    handlers, levels = list(root.handlers), (root.level, own.level)
    told: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(f"{record.name.partition('.')[0]}:{record.levelname}")

    every = ["DEBUG", "INFO", "WARNING", "ERROR"]
    try:
        for level in ("all", "debug", "info", "warning", "error"):
            told.clear()
            start_logging("front", LogOptions(LogLevel(level)), Kept())
            for name in ("nemotrt.front", "uvicorn.error"):
                for one in every:
                    logging.getLogger(name).log(getattr(logging, one), "x")
            least = {"all": 0, "debug": 0, "info": 1, "warning": 2, "error": 3}[level]
            theirs = 1 if level == "debug" else least
            expected = [f"nemotrt:{one}" for one in every[least:]]
            assert told == expected + [f"uvicorn:{one}" for one in every[theirs:]]
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        own.setLevel(levels[1])


LOGGING = """
import logging, sys, time
from nemotrt.serve.logs.options import LogOptions
from nemotrt.serve.logs.outlet import start_logging
start_logging("x", LogOptions())
for number in range(300):
    logging.getLogger("nemotrt.x").info("line %d", number)
"""


def test_the_last_lines_of_a_process_are_written(tmp_path) -> None:
    path = tmp_path / "x.log"
    copy = copier("x", LogFile(path, LogFiles()), LogOptions())
    child = ChildProcess([sys.executable, "-c", LOGGING], path, {}, copy=copy)
    assert child.wait(60)
    child.kill_group()
    lines = path.read_text().splitlines()
    assert [line.split("nemotrt.x ")[-1] for line in lines] == [f"line {i}" for i in range(300)]


def test_a_supervisor_whose_files_may_not_grow_keeps_its_child(tmp_path) -> None:
    code = "import time\nfor i in range(3000):\n print('x' * 100, flush=True)\nprint('end')"
    path = tmp_path / "x.log"
    copy = copier("x", LogFile(path, LogFiles()), LogOptions())
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, old[1]))
    try:
        child = ChildProcess([sys.executable, "-ISc", code], path, {}, copy=copy)
        until_s = time.monotonic() + 60
        while child.exit_code is None and time.monotonic() < until_s:
            time.sleep(0.01)
        assert child.exit_code == 0
        child.kill_group()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert 4000 < Path(path).stat().st_size <= 5000
