"""An HTTP client of one server, over lean connections that are kept for reuse."""

import asyncio
import json
import ssl
import time
import weakref
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, urlsplit

from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.profiles.load.exchange import Ending
from nemotrt.profiles.load.http.http_connection import HttpConnection, Sink
from nemotrt.profiles.load.target import TargetError

MAX_ERROR_CHARS = 300
REFUSALS = (429, 503)  # RFC 6585, section 4; RFC 9110, section 15.6.4


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
        self.headers = dict(headers or {})
        self.stall_timeout_s = stall_timeout_s
        self._host_header = parts.netloc
        self._idle: list[HttpConnection] = []
        self._all: weakref.WeakSet[HttpConnection] = weakref.WeakSet()

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
        refusal = bytearray()

        def sort(status: int, arrived_s: float, piece: bytes) -> None:
            if status == 200:
                sink(arrived_s, piece)
            else:
                refusal.extend(piece)

        try:
            status, retry_after = await self._asked(head, body, sort, self.stall_timeout_s, on_sent)
        except EnvironmentUnfitError as error:  # it answered when the run began
            raise TargetError(error.message, Ending.DISCONNECTED) from error
        if status != 200:
            text = refusal.decode(errors="replace")[:MAX_ERROR_CHARS]
            raise TargetError(
                f"{self.url}{path} answered {status}: {text}",
                ending_of(status),
                _seconds(retry_after),
            )

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and body of a GET.

        Raises:
            EnvironmentUnfitError: nothing listens there.
            TargetError: a broken connection, a stall.
        """
        body = bytearray()
        head = self._head("GET", path, {})
        status, _ = await self._asked(head, b"", lambda _, __, piece: body.extend(piece), 10.0)
        return status, bytes(body)

    def close(self) -> None:
        """Hang up."""
        for connection in list(self._all):
            connection.close()
        self._idle.clear()

    async def _asked(
        self,
        head: bytes,
        body: bytes,
        sink: Callable[[int, float, bytes], None],
        stall_timeout_s: float,
        on_sent: Callable[[float], None] = lambda sent_s: None,
    ) -> tuple[int, str]:
        """Return status and Retry-After of an answer; its pieces go to `sink` with the status.

        A kept connection that turns out to be stale is replaced, and the request sent again.
        """
        while True:
            connection = await self._connected()

            def pass_on(arrived_s: float, piece: bytes, one: HttpConnection = connection) -> None:
                sink(one.status_so_far, arrived_s, piece)

            try:
                status = await connection.post(head, body, pass_on, stall_timeout_s, on_sent)
            except TargetError:
                if not connection.was_stale:
                    raise
                continue
            self._release(connection)
            return status, connection.retry_after

    async def _connected(self) -> HttpConnection:
        """Return an idle connection, or a new one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable:
                return connection
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                HttpConnection, self._host, self._port, ssl=self._tls
            )
        except OSError as error:
            raise EnvironmentUnfitError(
                f"nothing answers at {self.url}: {error}. Start the server, or correct the address."
            ) from error
        self._all.add(connection)
        return connection

    def _release(self, connection: HttpConnection) -> None:
        if connection.is_reusable:
            self._idle.append(connection)

    def _head(self, method: str, path: str, more: Mapping[str, str]) -> bytes:
        """Return the request line and headers."""
        lines = [f"{method} {self._prefix}{path} HTTP/1.1"]
        headers = {"Host": self._host_header, "Accept": "*/*", "Content-Type": "application/json"}
        headers |= {**self.headers, **more}
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def ending_of(status: int) -> Ending:
    """Return what a status other than 200 says of the request."""
    if status in REFUSALS:
        return Ending.REFUSED
    return Ending.SERVER_ERROR if status >= 500 else Ending.REJECTED


def _seconds(retry_after: str) -> float | None:
    """Return the wait that a Retry-After header asks for, seconds or a date; None without one."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def _parse(url: str) -> SplitResult:
    """Return the parts of an http(s) URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is not a URL like http://127.0.0.1:8000.")
    if "@" in parts.netloc:  # the address is in every result and page
        raise ConfigError(
            "an address must not hold a password: give --header 'Authorization=Basic ...'."
        )
    return parts
