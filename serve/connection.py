"""One client of the engine process: reads its requests, writes back one frame a step."""

import itertools
import queue
import socket
import threading
import traceback
from collections.abc import Callable
from typing import Any

from nemotrt.engines.opening import OpenEngine
from nemotrt.engines.request import NOT_FINITE, ErrorCode
from nemotrt.errors import NemotrtError
from nemotrt.serve.delivery import Fields, failure
from nemotrt.serve.engine_loop import EngineLoop
from nemotrt.serve.grammar import GrammarCompiler
from nemotrt.serve.submission import make_submission
from nemotrt.serve.triton_model.wire import Frame, encode, read_frames

Item = tuple[int, Fields]
_numbers = itertools.count(1)


class Connection:
    """Two threads on one socket; tokenizing happens on the reader's, not the engine's."""

    def __init__(
        self,
        connection: socket.socket,
        opened: OpenEngine,
        loop: EngineLoop,
        on_close: Callable[["Connection"], None],
        metrics: Callable[[], str],
        grammars: GrammarCompiler | None,
    ) -> None:
        """Take over an accepted socket."""
        self._socket = connection
        self._opened = opened
        self._loop = loop
        self._on_close = on_close
        self._metrics = metrics
        self._grammars = grammars
        self._name = next(_numbers)
        self._pending: list[Item] = []
        self._outbox: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._read, self._write)
        ]

    def start(self) -> None:
        """Start reading and writing."""
        for thread in self._threads:
            thread.start()

    def flush(self) -> None:
        """Pass what the engine's step brought to the writer, as one frame."""
        if self._pending:
            items, self._pending = self._pending, []
            self._outbox.put({"op": "updates", "items": items})

    def close(self) -> None:
        """Write what is left, then disconnect."""
        self._outbox.put(None)
        self._threads[1].join()

    def _read(self) -> None:
        """Carry out frames until the client is gone, then end whatever it had."""
        try:
            for frame in read_frames(self._socket):
                self._handle(frame)
        except OSError:
            pass  # gone: the same end as an orderly close
        finally:
            self._loop.cancel_all(self)
            self._on_close(self)
            self._outbox.put(None)

    def _handle(self, frame: Frame) -> None:
        """Carry out one frame; ConnectionError for one that makes no sense."""
        match frame.get("op"), frame.get("id"):
            case "submit", int(number):
                self._submit(number, frame.get("inputs", {}))
            case "cancel", int(number):
                self._loop.cancel(self._request_id(number))
            case "status", number:
                status = {"op": "status", "id": number, **self._loop.status()}
                self._outbox.put(status)
            case "metrics", number:
                self._outbox.put({"op": "metrics", "id": number, "text": self._metrics()})
            case op, _:
                raise ConnectionError(f"unknown operation {op!r}.")

    def _submit(self, number: int, inputs: dict[str, Any]) -> None:
        """Check a request and pass it to the engine, or refuse it at once."""
        request_id = self._request_id(number)

        def deliver(fields: Fields) -> None:
            self._pending.append((number, fields))

        try:
            submission = make_submission(
                request_id, inputs, self._opened, self, deliver, self._grammars
            )
        except NemotrtError as error:
            self._refuse(number, failure("invalid_request", error.message))
            return
        except Exception as error:  # a bug must cost its own request, not the connection of all
            traceback.print_exc()
            self._refuse(number, failure("engine_failed", f"the request met a fault: {error}"))
            return
        self._loop.submit(submission)

    def _refuse(self, number: int, fields: Fields) -> None:
        """Answer a request that never reached the engine."""
        self._outbox.put({"op": "updates", "items": [(number, fields)]})

    def _request_id(self, number: int) -> str:
        """Return the scheduler's name for the client's request `number`."""
        return f"{self._name}:{number}"

    def _encoded(self, frame: Frame) -> bytes:
        """Return a frame's bytes; a request whose numbers JSON does not have ends with an error."""
        try:
            return encode(frame)
        except ValueError:
            items = [(number, self._checked(number, fields)) for number, fields in frame["items"]]
            return encode({**frame, "items": items})

    def _checked(self, number: int, fields: Fields) -> Fields:
        """Return a request's fields, or the end of the request if they can't be sent."""
        try:
            encode(fields)
        except ValueError:
            self._loop.cancel(self._request_id(number))
            return failure(ErrorCode.LOGITS_NOT_FINITE, NOT_FINITE)
        return fields

    def _write(self) -> None:
        """Write frames until told to end or the client is gone."""
        with self._socket:
            try:
                while (frame := self._outbox.get()) is not None:
                    self._socket.sendall(self._encoded(frame))
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # the reader sees the same end and cleans up
