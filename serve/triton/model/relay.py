"""The model's line to the engine process: submits, cancels, and hands out what comes back."""

import itertools
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from nemotrt.wire.faults import print_place
from nemotrt.wire.frames import Frame, encode, max_seq_len, read_frames, updates
from nemotrt.wire.trail import NO_TRAIL, Trail

Listener = Callable[[dict[str, Any]], None]
RECONNECT_S = 0.1
STARTING = "the engine process is starting or restarting."
SOCKET_VARIABLE = "NEMOTRT_ENGINE_SOCKET"


class EngineUnavailableError(Exception):
    """There is no engine process to talk to right now."""


class Relay:
    """A connection that comes back by itself; thread-safe.

    When it breaks, every live request ends with an error, and new ones are refused until the
    engine process is back.
    """

    def __init__(self, path: str) -> None:
        """Start connecting to the Unix socket at `path`."""
        self._path = path
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._max_seq_len: int | None = None  # what the engine says when the line is up
        self._listeners: dict[int, Listener] = {}
        self._ids = itertools.count(1)
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def max_seq_len(self) -> int:
        """Tokens that a sequence may have.

        Raises:
            EngineUnavailableError: the engine process is not there to say so.
        """
        if self._max_seq_len is None:
            raise EngineUnavailableError(STARTING)
        return self._max_seq_len

    def submit(self, inputs: dict[str, Any], listener: Listener, trail: Trail = NO_TRAIL) -> int:
        """Send a request; `listener` gets its updates on the relay's thread. Return its id.

        Raises:
            EngineUnavailableError: the engine process is not there.
            FrameTooLargeError: the engine process would refuse so much.
        """
        request_id = next(self._ids)
        told = {"trail": trail.fields(), "inputs": inputs}
        data = encode({"op": "submit", "id": request_id, **told})
        self._listeners[request_id] = listener
        try:
            self._send(data)
        except EngineUnavailableError:
            if self._listeners.pop(request_id, None) is not None:
                raise
        return request_id

    def cancel(self, request_id: int) -> None:
        """Ask the engine to end a request; its last update comes as usual."""
        try:
            self._send(encode({"op": "cancel", "id": request_id}))
        except EngineUnavailableError:
            return  # the broken connection has ended the request already

    def close(self) -> None:
        """Disconnect for good."""
        self._is_closed = True
        connection = self._socket
        if connection is not None:
            _shut(connection)
        self._thread.join()

    def _send(self, data: bytes) -> None:
        with self._lock:
            if self._socket is None:
                raise EngineUnavailableError(STARTING)
            try:
                self._socket.sendall(data)
            except OSError as error:
                _shut(self._socket)
                raise EngineUnavailableError(f"the engine process is gone: {error}.") from error

    def _run(self) -> None:
        """Connect, read until the connection breaks, fail what was live, and again."""
        while not self._is_closed:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with connection:
                try:
                    connection.connect(self._path)
                    connection.sendall(encode({"op": "status", "id": 0}))
                    with self._lock:
                        self._socket = connection
                    for frame in read_frames(connection):
                        self._dispatch(frame)
                except OSError:
                    pass  # not there yet, or gone: what follows says so to every live request
                with self._lock:
                    self._socket = self._max_seq_len = None
            self._fail_live()
            if not self._is_closed:
                time.sleep(RECONNECT_S)

    def _dispatch(self, frame: Frame) -> None:
        """Hand each update to its request's listener; a final one ends the request.

        Raises:
            ConnectionError: the frame makes no sense.
        """
        if frame.get("op") == "status":
            self._max_seq_len = max_seq_len(frame)
            return
        for request_id, fields in updates(frame):
            is_final = fields.get("final")
            listeners = self._listeners
            listener = listeners.pop(request_id, None) if is_final else listeners.get(request_id)
            if listener is None:
                continue
            try:
                listener(fields)
            except Exception as error:  # one request's fields make no sense: the others go on
                print_place(error)
                self._listeners.pop(request_id, None)
                listener(_failure("the engine process sent what makes no sense."))

    def _fail_live(self) -> None:
        """End every live request with an error."""
        for request_id in list(self._listeners):
            listener = self._listeners.pop(request_id, None)
            if listener is not None:
                listener(_failure("the engine process ended; try again."))


def _failure(message: str) -> dict[str, Any]:
    """Return the last fields of a request whose engine is lost."""
    return {"final": True, "error": {"code": "engine_failed", "message": message}}


def _shut(connection: socket.socket) -> None:
    """Break a connection, so that its reader wakes; it may be broken already."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
