"""One client of the engine process: reads its requests, writes back one frame a step."""

import itertools
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from nemotrt.engines.opening import OpenEngine
from nemotrt.engines.runtime.request import NOT_FINITE, ErrorCode, FinishReason
from nemotrt.errors import NemotrtError
from nemotrt.serve.engine.delivery import Fields, failure, outcome_of
from nemotrt.serve.engine.loop import SHUTTING_DOWN, EngineLoop
from nemotrt.serve.engine.preparation import MAX_WAITING, Preparation, work_size
from nemotrt.serve.engine.submission import Submission, make_submission
from nemotrt.serve.grammar.grammar import GrammarCompiler
from nemotrt.serve.requests.limits import refusal_code
from nemotrt.wire.frames import Frame, FrameTooLargeError, Item, encode, read_frames
from nemotrt.wire.trail import Trail, read_trail

log = logging.getLogger("nemotrt.engine")
_numbers = itertools.count(1)
CANCELLED: Fields = {"final": True, "finish_reason": str(FinishReason.CANCELLED)}


class ClientConnection:
    """Two threads on one socket; what takes long for some requests is left to `preparation`."""

    def __init__(
        self,
        connection: socket.socket,
        opened: OpenEngine,
        loop: EngineLoop,
        on_close: Callable[["ClientConnection"], None],
        metrics: Callable[[], str],
        grammars: GrammarCompiler | None,
        preparation: Preparation,
    ) -> None:
        """Take over an accepted socket."""
        self._socket = connection
        self._opened = opened
        self._loop = loop
        self._on_close = on_close
        self._metrics = metrics
        self._grammars = grammars
        self._preparation = preparation
        self._preparing: dict[int, Trail] = {}  # of requests that the engine's loop has not yet
        self._lock = threading.Lock()  # guards that
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
        except ConnectionResetError:
            pass  # gone: the same end as an orderly close
        except OSError as error:
            log.error("a client's connection is lost: %s", error)
        finally:
            with self._lock:
                self._preparing.clear()
            self._loop.cancel_all(self)
            self._on_close(self)
            self._outbox.put(None)

    def _handle(self, frame: Frame) -> None:
        """Carry out one frame; ConnectionError for one that makes no sense."""
        match frame.get("op"), frame.get("id"):
            case "submit", int(number):
                self._submit(number, frame.get("inputs"), read_trail(frame.get("trail")))
            case "cancel", int(number):
                self._cancel(number)
            case "status", number:
                status = {"op": "status", "id": number, **self._loop.status()}
                self._outbox.put(status)
            case "metrics", number:
                self._outbox.put({"op": "metrics", "id": number, "text": self._metrics()})
            case op, _:
                raise ConnectionError(f"unknown operation {op!r}.")

    def _submit(self, number: int, inputs: Any, trail: Trail) -> None:
        """Have a request checked and passed to the engine, or refuse it at once."""
        arrived_s = time.monotonic()
        if not isinstance(inputs, dict):
            raise ConnectionError("a request's inputs are no object.")
        with self._lock:
            self._preparing[number] = trail
        if self._loop.is_draining:
            self._settle(number, SHUTTING_DOWN)
            return
        size = work_size(inputs, is_compiled=self._is_compiled(inputs))
        if not self._preparation.run(lambda: self._prepare(number, inputs, arrived_s, trail), size):
            busy = f"{MAX_WAITING} requests of this size wait to be read; try later."
            self._settle(number, failure("queue_full", busy))

    def _prepare(self, number: int, inputs: dict[str, Any], arrived_s: float, trail: Trail) -> None:
        """Turn a request into a submission, or say why not."""

        def deliver(fields: Fields) -> None:
            self._pending.append((number, fields))

        request_id = self._request_id(number)
        try:
            submission = make_submission(
                request_id,
                inputs,
                self._opened,
                self,
                deliver,
                self._grammars,
                arrived_s=arrived_s,
                trail=trail,
            )
        except NemotrtError as error:
            self._settle(number, failure(refusal_code(error), error.message))
        except Exception as error:  # a bug must cost its own request, not the connection of all
            fields = {"request_id": trail.request_id, "sequence": request_id}
            log.error("a request met a fault", exc_info=error, extra={"fields": fields})
            self._settle(number, failure("engine_failed", f"the request met a fault: {error}"))
        else:
            self._settle(number, submission)

    def _settle(self, number: int, outcome: Submission | Fields) -> None:
        """Pass on a request that has been prepared, unless its client has cancelled it."""
        with self._lock:
            if number not in self._preparing:
                return
            trail = self._preparing.pop(number)
            if isinstance(outcome, Submission):
                self._loop.submit(outcome)
            else:
                self._refuse(number, outcome, trail)

    def _cancel(self, number: int) -> None:
        """End a request, wherever it is."""
        with self._lock:
            trail = self._preparing.pop(number, None)
        if trail is not None:
            self._refuse(number, CANCELLED, trail)
        else:
            self._loop.cancel(self._request_id(number))

    def _is_compiled(self, inputs: dict[str, Any]) -> bool:
        """Whether a request's grammar is there already."""
        guide = inputs.get("guided_decoding_guide_type"), inputs.get("guided_decoding_guide", "")
        match guide:
            case str(kind), str(text):
                return self._grammars is not None and self._grammars.has(kind, text)
        return False

    def _refuse(self, number: int, fields: Fields, trail: Trail) -> None:
        """Answer a request that never reached the engine."""
        told = {"request_id": trail.request_id, "sequence": self._request_id(number)}
        log.info("refused", extra={"fields": {**told, "outcome": outcome_of(fields)}})
        self._outbox.put({"op": "updates", "items": [(number, fields)]})

    def _request_id(self, number: int) -> str:
        """Return the scheduler's name for the client's request `number`."""
        return f"{self._name}:{number}"

    def _encoded(self, frame: Frame) -> list[bytes]:
        """Return a frame's bytes; updates that make no frame together have one each."""
        try:
            return [encode(frame)]
        except (FrameTooLargeError, ValueError) as error:
            items: list[Item] = frame["items"]
            if len(items) > 1:
                return [
                    data for item in items for data in self._encoded({**frame, "items": [item]})
                ]
            number = items[0][0]
            self._loop.cancel(self._request_id(number))
            return [encode({**frame, "items": [(number, _unsendable(error))]})]

    def _write(self) -> None:
        """Write frames until told to end or the client is gone."""
        with self._socket:
            try:
                while (frame := self._outbox.get()) is not None:
                    for data in self._encoded(frame):
                        self._socket.sendall(data)
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # the reader sees the same end and cleans up


def _unsendable(error: FrameTooLargeError | ValueError) -> Fields:
    """Return the end of a request whose answer is no frame: too large, or no JSON numbers."""
    if isinstance(error, FrameTooLargeError):
        return failure("answer_too_large", f"the answer has {error}; ask for less, or stream.")
    return failure(ErrorCode.LOGITS_NOT_FINITE, NOT_FINITE)
