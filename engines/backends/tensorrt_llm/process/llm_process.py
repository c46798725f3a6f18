"""TensorRT-LLM's process, seen from our side: it is started, checked, heard and ended here."""

import contextlib
import itertools
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nemotrt.engines.backends.tensorrt_llm.apart import start
from nemotrt.engines.backends.tensorrt_llm.process.interpreter import command, environment
from nemotrt.engines.backends.tensorrt_llm.process.last_words import LastWords
from nemotrt.engines.backends.tensorrt_llm.process.news import Gained, read_news
from nemotrt.engines.backends.tensorrt_llm.process.versions import check_version, lacking
from nemotrt.errors import ChildProcessFailedError, EnvironmentUnfitError
from nemotrt.wire import parent_death
from nemotrt.wire.frames import Frame, encode, read_frame

log = logging.getLogger("nemotrt.engine")
NO_REUSE = (
    "TensorRT-LLM %s keeps no recurrent state: every prompt is computed whole. %s or later reuses "
    "prefixes (kv_cache_config.%s)."
)
CLOSE_S = 30.0  # for the LLM to let go of its GPU
DEATH_S = 5.0  # for a process to be gone whose socket is


class LLMProcess:
    """An LLM in a process of its own; requests are started and aborted from any thread."""

    def __init__(
        self,
        python: str,
        model: str,
        args: Mapping[str, Any],
        vocab_size: int,
        newer_args: Mapping[str, Any] | None = None,
    ) -> None:
        """Start it and wait until it is ready, which takes as long as the model takes to load.

        `newer_args` count in a version that has all that they ask for.

        Raises:
            EnvironmentUnfitError: its version or GPU lacks what `args` ask for, or it says that it
                can't start.
            ChildProcessFailedError: it ended.
        """
        self._vocab_size = vocab_size
        self._numbers = itertools.count()
        self._gained: queue.SimpleQueue[Gained | Exception] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._is_closed = False
        ours, theirs = socket.socketpair()
        reading, self._lifeline = os.pipe()
        words = command(python, start.__file__, str(theirs.fileno()))
        self._process = subprocess.Popen(
            [sys.executable, "-IS", parent_death.__file__, *words],
            stdin=reading,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(python),
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
        os.close(reading)
        theirs.close()
        self._connection, self._stream = ours, ours.makefile("rb")
        self._last_words = LastWords(self._process.stdout)
        self._reader = threading.Thread(target=self._read, name="llm process", daemon=True)
        try:
            self.version, self.args = self._begin(model, args, newer_args)
        except BaseException:
            self.close(wait_s=0)
            raise
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's id, and its group's."""
        return self._process.pid

    def start(
        self,
        prompt: Sequence[int],
        params: Mapping[str, Any],
        salt: str = "",
        adapter: Sequence[Any] = (),
    ) -> int:
        """Start a request and return its number; it is heard of through `take` alone.

        It shares prefixes with requests of the same salt. `adapter` is a name, a number and a path.
        """
        number = next(self._numbers)
        told = {"prompt": list(prompt), "params": dict(params), "salt": salt}
        told["adapter"] = list(adapter)
        self._send({"op": "submit", "id": number, **told})
        return number

    def abort(self, number: int) -> None:
        """Ask the LLM to give a request up; one that has ended is left alone."""
        self._send({"op": "abort", "id": number})

    def take(self, timeout_s: float) -> list[Gained]:
        """Return what has come, waiting for the first; empty if nothing came in time.

        Raises:
            ChildProcessFailedError: the process is gone, or breaks the protocol.
        """
        found: list[Gained] = []
        with contextlib.suppress(queue.Empty):
            while True:
                news = self._gained.get(timeout=timeout_s) if not found else self._gained.get(False)
                if isinstance(news, Exception):
                    self._gained.put(news)  # for whoever asks again
                    if found:
                        break
                    raise self._failure(f"failed: {news}" if str(news) else "ended") from news
                found.append(news)
        return found

    def when_ended(self, tell: Callable[[], None]) -> None:
        """Let another thread call `tell` once nothing more can be taken, unless it was closed."""

        def wait() -> None:
            self._reader.join()
            if not self._is_closed:
                tell()

        threading.Thread(target=wait, name="llm process's end", daemon=True).start()

    def close(self, wait_s: float = CLOSE_S) -> None:
        """Let the LLM end, then end what is left of its process group."""
        if self._is_closed:
            return
        self._is_closed = True
        self._send({"op": "stop"})
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(wait_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # MPI's workers may have it still
        if self._reader.is_alive():
            self._reader.join()
        self._stream.close()
        self._connection.close()
        os.close(self._lifeline)
        self._last_words.close()

    def _begin(
        self, model: str, args: Mapping[str, Any], newer_args: Mapping[str, Any] | None
    ) -> tuple[str, Mapping[str, Any]]:
        """Check the version, start the LLM; return the version, and the arguments that it got."""
        hello = self._answer("hello")
        version, capability = hello.get("version"), hello.get("compute_capability")
        if newer_args is not None:
            since = lacking(str(version), newer_args)
            args = args if since else newer_args
            if since:
                log.warning(NO_REUSE, version, since.version, since.name)
        check_version(str(version), args, None if capability is None else str(capability))
        fields = {"model": model, "args": dict(args), "vocab_size": self._vocab_size}
        self._send({"op": "start", **fields})
        try:
            self._answer("ready")
        except EnvironmentUnfitError as error:
            raise EnvironmentUnfitError(f"TensorRT-LLM {version} can't start: {error}") from error
        return str(version), args

    def _answer(self, operation: str) -> Frame:
        """Return the next frame, which must be of that operation."""
        try:
            found = read_frame(self._stream)
        except OSError as error:
            raise self._failure(f"failed: {error}") from error
        if found is None:
            raise self._failure("ended before it was ready")
        if found[0].get("op") == "refused":
            raise EnvironmentUnfitError(str(found[0].get("error")))
        if found[0].get("op") != operation:
            raise self._failure(f"says {found[0].get('op')!r} for {operation!r}")
        return found[0]

    def _send(self, frame: Frame) -> None:
        """Send a frame; that nobody is there to hear it comes out where we listen."""
        data = encode(frame)
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(data)

    def _read(self) -> None:
        """Take what comes until the process closes."""
        fault = Exception()
        try:
            while (found := read_frame(self._stream)) is not None:
                for news in read_news(*found, self._vocab_size):
                    self._gained.put(news)
        except (OSError, ValueError) as error:  # pydantic's are ValueErrors
            fault = error
        self._gained.put(fault)

    def _failure(self, what: str) -> ChildProcessFailedError:
        """Return the error that says how the process ended, and its last words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(DEATH_S)
        code = self._process.poll()
        how = "" if code is None else f" with exit code {code}"
        shown = "".join(f"\n  {line}" for line in self._last_words.lines())
        return ChildProcessFailedError(
            f"TensorRT-LLM's process {what}{how}. Its last lines:{shown or ' none.'}"
        )
