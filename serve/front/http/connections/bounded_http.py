"""HTTP with limits: on a request's head, on the time it takes to arrive, and on connections."""

import asyncio
import json
import logging
from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.http.connections.versions import RequestParser, unchunked
from nemotrt.serve.processes.host import open_files

log = logging.getLogger("nemotrt.access")
MAX_HEADERS = 128
MAX_HEAD_BYTES = 32 << 10  # request line and headers
HEAD_S = 20.0  # from a request's first byte to its last header
BODY_S = 60.0  # from there to its body's end
MAX_CONNECTIONS = 4096
MAX_BACKLOG = 2048
SPARE_FILES = 128  # for what is no connection of a client


class HeadTooLargeError(Exception):
    """Ends the parser's work on a head."""


class BoundedProtocol(HttpToolsProtocol):
    """A connection whose requests come in bounded size and time.

    A connection more than the limit ends the one that has been idle longest, so that connections
    which ask for nothing keep nobody out. What is wrong with a request that was sent behind others
    is answered after them.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Start with no request."""
        super().__init__(*arguments, **options)
        self.parser = RequestParser(self)  # type: ignore[assignment]
        self.url = b""  # of no request yet
        self._idle = IDLE.setdefault(self.server_state, {})
        self._deadline: asyncio.TimerHandle | None = None
        self._later: ApiError | None = None  # to be answered once those before it are
        self._is_in_head = self._is_head_too_large = False
        self._num_received = self._num_parsed = 0  # bytes of the head

    @property
    def is_idle(self) -> bool:
        """Whether no request of the connection is being read or answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, in place of an idle one where there are too many."""
        if len(self.connections) >= most_connections():
            self._make_room()
        super().connection_made(transport)
        self._idle[self] = None
        self._within(self.timeout_keep_alive, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        self._idle.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before the headers are whole: one of them may have no end."""
        super().data_received(data)
        if self._is_in_head:
            self._num_received += len(data)
            if self._num_received > MAX_HEAD_BYTES:
                self._refuse(_head_too_large())

    def on_message_begin(self) -> None:
        """Start the clock of the head."""
        super().on_message_begin()
        self._is_in_head = True
        self._num_received = self._num_parsed = 0
        self._within(HEAD_S, lambda: self._refuse(_late("headers", HEAD_S)))

    def on_url(self, url: bytes) -> None:
        """Take the address."""
        super().on_url(url)
        self._count(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, if there may be one more."""
        super().on_header(name, value)
        self._count(name + value)

    def on_headers_complete(self) -> None:
        """Start the clock of the body."""
        self._is_in_head = False
        self._idle.pop(self, None)
        super().on_headers_complete()
        if self.parser.get_http_version() == "1.0":
            self.cycle.send = unchunked(self.cycle)  # type: ignore[assignment, method-assign]
        self._stop_clock()
        self._await_body()

    def on_message_complete(self) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Note that the connection is idle, or go on to what was sent behind the request."""
        super().on_response_complete()
        if self.is_idle and not self.transport.is_closing():
            self._idle[self] = None
        if self._later is not None and not self._is_behind:
            self._refuse(self._later)
        elif not self.is_idle:
            self._await_body()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refuses: a head that is too large, or what is no HTTP."""
        is_too_large = self._is_head_too_large
        self._refuse(_head_too_large() if is_too_large else ApiError(400, msg, code="http_error"))

    @property
    def _is_behind(self) -> bool:
        """Whether what is read now comes behind a request that is not answered yet."""
        return bool(self.pipeline) or not (self.is_idle or self.cycle.more_body)

    def _await_body(self) -> None:
        """Start the clock of a body; while others are answered, nothing is read of it."""
        if self.cycle.more_body and not self.pipeline:
            self._within(BODY_S, lambda: self._refuse(_late("body", BODY_S)))

    def _count(self, part: bytes) -> None:
        """Count a part of the head; what is raised reaches `send_400_response`."""
        self._num_parsed += len(part)
        if len(self.headers) > MAX_HEADERS or self._num_parsed > MAX_HEAD_BYTES:
            self._is_head_too_large = True
            raise HeadTooLargeError

    def _make_room(self) -> None:
        """Close the connection that has been idle longest, if one is."""
        while self._idle:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            if not oldest.transport.is_closing():
                oldest.transport.close()
                return

    def _within(self, seconds: float, end: Callable[[], None]) -> None:
        """Start the clock anew."""
        self._stop_clock()
        self._deadline = self.loop.call_later(seconds, end)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None

    def _refuse(self, error: ApiError) -> None:
        """Answer with an error, unless an answer has begun, and hang up."""
        if self.transport.is_closing():
            return
        if self._is_behind:
            self._later = error
            self.flow.pause_reading()
            return
        log.info("refused", extra={"fields": {"status": error.status, "error": error.code}})
        if self.is_idle or not self.cycle.response_started:
            path = self.url.partition(b"?")[0].decode("latin-1")  # as far as it has come
            body = json.dumps(error.body_for(path)).encode()
            lines = [b"content-type: application/json", b"connection: close"]
            lines.append(b"content-length: %d" % len(body))
            head = STATUS_LINE[error.status] + b"".join(line + b"\r\n" for line in lines)
            self.transport.write(head + b"\r\n" + body)
        self.transport.close()


# By server; the one that has been idle longest is the first: in a flood nobody looks at them all.
IDLE: WeakKeyDictionary[ServerState, dict[BoundedProtocol, None]] = WeakKeyDictionary()


@cache
def most_connections() -> int:
    """Return how many connections this process can hold; its soft limit of files is raised."""
    return min(MAX_CONNECTIONS, max(1, _spare_files() - backlog()))


@cache
def backlog() -> int:
    """Return how many connections may wait; asyncio takes all at once, before one is closed."""
    return min(MAX_BACKLOG, max(1, _spare_files() // 3))


@cache
def _spare_files() -> int:
    """Return how many files there are for connections."""
    return open_files(MAX_CONNECTIONS + MAX_BACKLOG + SPARE_FILES) - SPARE_FILES


def _head_too_large() -> ApiError:
    limit = f"{MAX_HEADERS} headers or {MAX_HEAD_BYTES} bytes"
    return ApiError(431, f"the request's head exceeds {limit}.", code="headers_too_large")


def _late(part: str, limit_s: float) -> ApiError:
    message = f"the request's {part} took more than {limit_s:g} s."
    return ApiError(408, message, code="request_timeout")
