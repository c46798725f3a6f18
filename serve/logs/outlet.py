"""Where a process's lines go: to standard error, from a thread of their own.

A process of a server writes to a pipe that its supervisor reads. Should nobody read, no request
waits for it: what does not fit is left out, and how much that was is said once there is room.
"""

import logging
import os
import queue
import sys
import threading
import time
from types import TracebackType

from nemotrt.serve.logs.lines import Lines
from nemotrt.serve.logs.options import LogLevel, LogOptions

log = logging.getLogger("nemotrt.serve")
MAX_LINES = 4096  # that wait to be written
FLUSH_S = 1.0  # at the end of a process
STDERR = 2
LOST = "%d lines of this log are lost: nobody took them in time"


class Outlet(logging.Handler):
    """A handler that never waits."""

    def __init__(self, descriptor: int = STDERR, max_lines: int = MAX_LINES) -> None:
        """Start the thread."""
        super().__init__()
        self._descriptor = descriptor
        self._num_lost = 0
        self._lines: queue.Queue[bytes] = queue.Queue(max_lines)
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on, or count it as lost."""
        try:
            if self._num_lost and not self._lines.full():
                lost, self._num_lost = self._num_lost, 0
                told = {"levelno": logging.WARNING, "levelname": "WARNING", "msg": LOST}
                told |= {"name": record.name, "args": (lost,)}
                self._put(logging.makeLogRecord(told))
            self._put(record)
        except queue.Full:
            self._num_lost += 1
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until everything is written, for a moment at most."""
        until_s = time.monotonic() + FLUSH_S
        while self._lines.unfinished_tasks and time.monotonic() < until_s:
            time.sleep(0.005)

    def _put(self, record: logging.LogRecord) -> None:
        self._lines.put_nowait(f"{self.format(record)}\n".encode(errors="replace"))

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                pass  # a full disk, or nobody to read: the line is lost, the process goes on
            finally:
                self._lines.task_done()


def start_logging(
    process: str, options: LogOptions, handler: logging.Handler | None = None
) -> None:
    """Let this process log as it is told, by way of `handler` or an Outlet."""
    if handler is None:
        handler = Outlet()
        sys.excepthook = _uncaught
        threading.excepthook = lambda told: _uncaught_of_thread(told.thread, told.exc_value)
    handler.setFormatter(Lines(process, options.log_format))
    root, own = logging.getLogger(), logging.getLogger("nemotrt")
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    level = options.log_level
    own.setLevel(level.name_of_least)
    root.setLevel("INFO" if level is LogLevel.DEBUG else level.name_of_least)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say why this process ends."""
    log.critical("this process ends by a fault: %s", error, exc_info=(kind, error, trace))


def _uncaught_of_thread(thread: threading.Thread | None, error: BaseException | None) -> None:
    """Say that a thread has ended; what it served is a client's, whom nobody quotes."""
    name = "?" if thread is None else thread.name
    log.error("the thread %s ends by a fault", name, exc_info=error)
