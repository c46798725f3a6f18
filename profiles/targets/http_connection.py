"""A lean HTTP/1.1 client for streams: each piece of a body is stamped when it arrives.

A load generator must cost far less than what it measures, so this is one asyncio protocol over
httptools (the parser of Node.js), without the layers of a general client.
"""

import asyncio
import json
import ssl
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httptools

from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.profiles.load.stamping_loop import arrival_s
from nemotrt.profiles.targets.target import TargetError

Sink = Callable[[float, bytes], None]
MAX_ERROR_CHARS = 300


class Connection(asyncio.Protocol):
    """One connection; carries one request at a time."""

    def __init__(self) -> None:
        """Wait to be connected."""
        self.status = 0
        self.last_data_s = 0.0
        self.is_reusable = True
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._sink: Sink | None = None
        self._done: asyncio.Future[None] | None = None

    async def post(
        self,
        head: bytes,
        body: bytes,
        sink: Sink,
        stall_timeout_s: float,
        on_sent: Callable[[float], None] = lambda sent_s: None,
    ) -> int:
        """Send a request, give each piece of the answer's body to `sink`, return the status.

        `on_sent` gets the time at which the request was written.

        Raises:
            TargetError: the connection broke off, or nothing came for `stall_timeout_s`.
        """
        assert self._transport is not None  # connected
        loop = asyncio.get_running_loop()
        self._sink, self._done = sink, loop.create_future()
        self._parser = httptools.HttpResponseParser(self)
        watch = loop.call_later(stall_timeout_s, self._watch, stall_timeout_s)
        message = head + body
        self.last_data_s = time.perf_counter()
        on_sent(self.last_data_s)
        try:
            self._transport.write(message)
            await self._done
        except BaseException:
            self.close()
            raise
        finally:
            watch.cancel()
            self._sink = self._done = None
        return self.status

    def close(self) -> None:
        """Hang up; a server that listens for it cancels the request."""
        self.is_reusable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by asyncio)."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Stamp and parse what came (called by asyncio)."""
        self.last_data_s = arrival_s()
        if self._done is None:
            self.close()  # nobody asked for this
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the server's answer is not HTTP: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        """End the request that is under way (called by asyncio)."""
        self.is_reusable = False
        detail = f": {error}" if error else ""
        self._fail(f"the server closed the connection before the end of its answer{detail}")

    def on_body(self, body: bytes) -> None:
        """Pass a piece on (called by httptools)."""
        if self._sink is None or self._done is None or self._done.done():
            return
        try:
            self._sink(self.last_data_s, body)
        except NotAnEventError as error:  # httptools would hide it
            self._fail(str(error))

    def on_message_complete(self) -> None:
        """Finish the request (called by httptools)."""
        self.status = self._parser.get_status_code()
        self.is_reusable = self._parser.should_keep_alive()
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, message: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(TargetError(message + "."))

    def _watch(self, stall_timeout_s: float) -> None:
        """Fail the request if it has stalled, else look again when it could have."""
        if self._done is None or self._done.done():
            return
        left_s = self.last_data_s + stall_timeout_s - time.perf_counter()
        if left_s <= 0:
            self._fail(f"the server sent nothing for {stall_timeout_s:g} s")
        else:
            asyncio.get_running_loop().call_later(left_s, self._watch, stall_timeout_s)


class NotAnEventError(Exception):
    """A piece of a stream is not what the protocol says; raised by sinks, ends the request."""


class HttpClient:
    """Connections to one server, kept for reuse."""

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, stall_timeout_s: float = 300.0
    ) -> None:
        """Remember where to connect; raises ConfigError for a URL that is not http(s)."""
        parts = _parse(url)
        self.url = url.rstrip("/")
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Host": parts.netloc.rpartition("@")[2], **(headers or {})}
        self._stall_timeout_s = stall_timeout_s
        self._idle: list[Connection] = []
        self._all: weakref.WeakSet[Connection] = weakref.WeakSet()

    async def post(
        self, path: str, value: Mapping[str, Any], sink: Sink, on_sent: Callable[[float], None]
    ) -> None:
        """Post JSON; give the body's pieces to `sink` if the status is 200.

        `on_sent` gets the time at which the request was written.

        Raises:
            TargetError: another status, a broken connection, a stall.
        """
        body = json.dumps(value, ensure_ascii=False).encode()
        head = self._head("POST", path, {"Content-Length": str(len(body))})
        connection = await self._connected()
        refusal = bytearray()

        def sort(arrived_s: float, piece: bytes) -> None:
            if connection._parser.get_status_code() == 200:
                sink(arrived_s, piece)
            else:
                refusal.extend(piece)

        status = await connection.post(head, body, sort, self._stall_timeout_s, on_sent)
        self._release(connection)
        if status != 200:
            text = refusal.decode(errors="replace")[:MAX_ERROR_CHARS]
            raise TargetError(f"{self.url}{path} answered {status}: {text}")

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and body of a GET.

        Raises:
            EnvironmentUnfitError: nothing listens there.
            TargetError: a broken connection, a stall.
        """
        body = bytearray()
        connection = await self._connected()
        status = await connection.post(
            self._head("GET", path, {}), b"", lambda _, piece: body.extend(piece), 10.0
        )
        self._release(connection)
        return status, bytes(body)

    def close(self) -> None:
        """Hang up."""
        for connection in list(self._all):
            connection.close()
        self._idle.clear()

    async def _connected(self) -> Connection:
        """Return an idle connection, or a new one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable:
                return connection
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                Connection, self._host, self._port, ssl=self._tls
            )
        except OSError as error:
            raise EnvironmentUnfitError(
                f"nothing answers at {self.url}: {error}. Start the server, or correct the address."
            ) from error
        self._all.add(connection)
        return connection

    def _release(self, connection: Connection) -> None:
        if connection.is_reusable:
            self._idle.append(connection)

    def _head(self, method: str, path: str, more: Mapping[str, str]) -> bytes:
        """Return the request line and headers."""
        lines = [f"{method} {self._prefix}{path} HTTP/1.1"]
        headers = {"Accept": "*/*", "Content-Type": "application/json", **self._headers, **more}
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _parse(url: str) -> SplitResult:
    """Return the parts of an http(s) URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is not a URL like http://127.0.0.1:8000.")
    return parts
