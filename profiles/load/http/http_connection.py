"""A lean HTTP/1.1 connection for streams: each piece of a body is stamped when it arrives.

A load generator must cost far less than what it measures, so this is one asyncio protocol over
httptools (the parser of Node.js), without the layers of a general client.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from nemotrt.needs import HTTPTOOLS
from nemotrt.profiles.load.exchange import Ending
from nemotrt.profiles.load.stamping_loop import arrival_s
from nemotrt.profiles.load.target import TargetError

Sink = Callable[[float, bytes], None]


class HttpConnection(asyncio.Protocol):
    """One connection; carries one request at a time.

    It was stale if a server that had kept it hung up before it answered the next request: as many
    do, without having said so.
    """

    def __init__(self) -> None:
        """Wait to be connected."""
        self.status = 0
        self.retry_after = ""
        self.last_data_s = 0.0
        self.is_reusable = True
        self.was_stale = False
        self._is_kept = self._has_answer = False
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._sink: Sink | None = None
        self._done: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

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
        self._parser = _httptools().HttpResponseParser(self)
        self._timer = loop.call_later(stall_timeout_s, self._watch, stall_timeout_s)
        self._has_answer, self.retry_after = False, ""
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
            self._timer.cancel()
            self._sink = self._done = None
        return self.status

    @property
    def status_so_far(self) -> int:
        """The status of the answer that is coming in."""
        status: int = self._parser.get_status_code()
        return status

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
        self._has_answer = True
        try:
            self._parser.feed_data(data)
        except _httptools().HttpParserError as error:
            self._fail(TargetError(f"the server's answer is not HTTP: {error}.", Ending.MALFORMED))

    def connection_lost(self, error: Exception | None) -> None:
        """End the request that is under way (called by asyncio)."""
        self.is_reusable = False
        self.was_stale = self._is_kept and not self._has_answer
        detail = f": {error}" if error else ""
        what = f"the server closed the connection before the end of its answer{detail}."
        self._fail(TargetError(what, Ending.DISCONNECTED))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the one header that matters (called by httptools)."""
        if name.lower() == b"retry-after":
            self.retry_after = value.decode("latin-1").strip()

    def on_body(self, body: bytes) -> None:
        """Pass a piece on (called by httptools)."""
        if self._sink is None or self._done is None or self._done.done():
            return
        try:
            self._sink(self.last_data_s, body)
        except TargetError as error:  # httptools would hide it
            self._fail(error)

    def on_message_complete(self) -> None:
        """Finish the request (called by httptools)."""
        self.status = self._parser.get_status_code()
        self.is_reusable = self._is_kept = self._parser.should_keep_alive()
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, error: TargetError) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

    def _watch(self, stall_timeout_s: float) -> None:
        """Fail the request if it has stalled, else look again when it could have."""
        if self._done is None or self._done.done():
            return
        left_s = self.last_data_s + stall_timeout_s - time.perf_counter()
        if left_s <= 0:
            what = f"the server sent nothing for {stall_timeout_s:g} s."
            self._fail(TargetError(what, Ending.STALLED))
        else:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(left_s, self._watch, stall_timeout_s)


def _httptools() -> Any:
    """Return the parser's module, which only servers need."""
    return HTTPTOOLS.load("httptools", "measuring a server")
