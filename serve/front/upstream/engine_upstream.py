"""Requests straight to the engine process, over its Unix socket: the front without Triton."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from nemotrt.serve.front.upstream.upstream import Fields, UpstreamError
from nemotrt.wire.frames import (
    READ_BYTES,
    Frame,
    FrameReader,
    FrameTooLargeError,
    encode,
    updates,
)
from nemotrt.wire.trail import CURRENT

log = logging.getLogger("nemotrt.front")
LOST = {"code": "engine_failed", "message": "the engine process ended; try again."}
STARTING = "the engine process is starting."


class EngineLine:
    """One connection, and the requests that wait for what it brings."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Start reading."""
        self.is_broken = False
        self._reader = reader
        self._writer = writer
        self._queues: dict[int, asyncio.Queue[Fields]] = {}
        self._reading = asyncio.create_task(self._read())

    def open(self, number: int) -> asyncio.Queue[Fields]:
        """Return where the updates of request `number` arrive; the last one is an error at worst.

        Raises:
            UpstreamError: the connection has broken.
        """
        if self.is_broken:
            raise UpstreamError("engine_unavailable", STARTING)
        return self._queues.setdefault(number, asyncio.Queue())

    def close(self, number: int) -> None:
        """Forget a request."""
        self._queues.pop(number, None)

    async def send(self, data: bytes) -> None:
        """Send a frame.

        Raises:
            UpstreamError: the connection has broken.
        """
        self.send_soon(data)
        try:
            await self._writer.drain()
        except OSError as error:
            raise UpstreamError("engine_unavailable", STARTING) from error

    def send_soon(self, data: bytes) -> None:
        """Send a frame without waiting."""
        if not self.is_broken:
            self._writer.write(data)

    def disconnect(self) -> None:
        """End the connection."""
        self._reading.cancel()

    async def _read(self) -> None:
        """Hand out updates until the connection breaks; then fail what waits, whatever broke it."""
        frames = FrameReader()
        try:
            while data := await self._reader.read(READ_BYTES):
                for frame in frames.feed(data):
                    self._dispatch(frame)
        except OSError as error:
            log.error("the connection to the engine process is lost: %s", error)
        finally:
            self.is_broken = True
            self._writer.close()
            for queue in self._queues.values():
                queue.put_nowait({"final": True, "error": LOST})

    def _dispatch(self, frame: Frame) -> None:
        """Hand each update to its request; ConnectionError for a frame that makes no sense."""
        for number, fields in updates(frame):
            if number in self._queues:
                self._queues[number].put_nowait(fields)


class EngineUpstream:
    """One connection that all requests share; it comes back by itself."""

    def __init__(self, path: Path) -> None:
        """Prepare; the first request connects."""
        self._path = path
        self._line: EngineLine | None = None
        self._ids = itertools.count(1)
        self._connecting = asyncio.Lock()

    async def generate(self, inputs: Fields) -> AsyncIterator[Fields]:
        """Yield the engine's updates."""
        number = next(self._ids)
        try:
            trail = CURRENT.get().fields()
            data = encode({"op": "submit", "id": number, "trail": trail, "inputs": inputs})
            line = await self._connected()
        except FrameTooLargeError as error:
            raise UpstreamError("invalid_request", str(error)) from error
        except OSError as error:
            raise UpstreamError("engine_unavailable", STARTING) from error
        queue = line.open(number)
        is_final = False
        try:
            await line.send(data)
            while not is_final:
                fields = await queue.get()
                is_final = bool(fields.get("final"))
                if "error" in fields:
                    raise UpstreamError(fields["error"]["code"], fields["error"]["message"])
                yield fields
        finally:
            line.close(number)
            if not is_final:
                line.send_soon(encode({"op": "cancel", "id": number}))

    async def is_ready(self) -> bool:
        """Whether the engine process accepts connections."""
        try:
            await self._connected()
        except OSError:
            return False
        return True

    async def close(self) -> None:
        """Disconnect."""
        if self._line is not None:
            self._line.disconnect()

    async def _connected(self) -> EngineLine:
        """Return the connection, made anew where it is broken."""
        async with self._connecting:
            if self._line is None or self._line.is_broken:
                self._line = EngineLine(*await asyncio.open_unix_connection(self._path))
            return self._line
