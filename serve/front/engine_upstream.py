"""Requests straight to the engine process, over its Unix socket: the front without Triton."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path

from nemotrt.serve.front.upstream import Fields, UpstreamError
from nemotrt.serve.triton_model.wire import HEADER, MAX_FRAME_BYTES, Frame, encode


class EngineUpstream:
    """One connection that all requests share; it comes back by itself."""

    def __init__(self, path: Path) -> None:
        """Prepare; the first request connects."""
        self._path = path
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)
        self._queues: dict[int, asyncio.Queue[Fields]] = {}
        self._connecting = asyncio.Lock()

    async def generate(self, inputs: Fields) -> AsyncIterator[Fields]:
        """Yield the engine's updates."""
        number = next(self._ids)
        queue = self._queues[number] = asyncio.Queue()
        is_final = False
        try:
            await self._send({"op": "submit", "id": number, "inputs": inputs})
            while not is_final:
                fields = await queue.get()
                is_final = bool(fields.get("final"))
                if "error" in fields:
                    raise UpstreamError(fields["error"]["code"], fields["error"]["message"])
                yield fields
        finally:
            self._queues.pop(number, None)
            if not is_final and self._writer is not None:
                self._writer.write(encode({"op": "cancel", "id": number}))

    async def is_ready(self) -> bool:
        """Whether the engine process accepts connections."""
        try:
            await self._connected()
        except OSError:
            return False
        return True

    async def close(self) -> None:
        """Disconnect."""
        if self._reading is not None:
            self._reading.cancel()
        if self._writer is not None:
            self._writer.close()

    async def _send(self, frame: Frame) -> None:
        try:
            writer = await self._connected()
            writer.write(encode(frame))
            await writer.drain()
        except OSError as error:
            raise UpstreamError("engine_unavailable", "the engine process is starting.") from error

    async def _connected(self) -> asyncio.StreamWriter:
        """Return the connection, made anew where it is broken."""
        async with self._connecting:
            if self._writer is None:
                reader, self._writer = await asyncio.open_unix_connection(self._path)
                self._reading = asyncio.create_task(self._read(reader))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Hand out updates until the connection breaks; then fail what was live."""
        try:
            while True:
                (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
                if size > MAX_FRAME_BYTES:
                    break
                frame = json.loads(await reader.readexactly(size))
                for number, fields in frame.get("items", ()):
                    if number in self._queues:
                        self._queues[number].put_nowait(fields)
        except (OSError, asyncio.IncompleteReadError):
            pass  # gone: every live request hears of it below
        if self._writer is not None:
            self._writer.close()
        self._writer = None
        error = {"code": "engine_failed", "message": "the engine process ended; try again."}
        for queue in self._queues.values():
            queue.put_nowait({"final": True, "error": error})
