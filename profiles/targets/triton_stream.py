"""A streamed call to Triton that is ended without cancelling it, where the model allows that."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from nemotrt.profiles.load.stamping_loop import arrival_s

END_TIMEOUT_S = 5.0
STOP_AGAIN_S = 0.2
Stop = Callable[[], Awaitable[bool]]  # asks the server once; False: it does not know such a request
Item = tuple[float, Any, Any]  # when it came, the result, the error


class StreamEndedError(Exception):
    """The server ended the call."""


class TritonStream:
    """The responses of one call, read in a task of its own: a cancelled reader cancels its call.

    A cancelled call may crash Triton 2.51 (a race in its gRPC frontend, fixed upstream later).
    """

    def __init__(self, answers: Any) -> None:
        """Begin to read `answers`, tritonclient's iterator of (result, error)."""
        self._answers = answers
        self._items: asyncio.Queue[Item | Exception] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def next(self) -> Item:
        """Return the next response; StreamEndedError behind the last, or what broke it."""
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def end(self, stop: Stop | None) -> None:
        """Wait for the call's end, asking for it with `stop`; cancel it when that is no use."""
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                while stop is not None and not self._reader.done():
                    if not await stop():
                        break
                    await asyncio.wait([self._reader], timeout=STOP_AGAIN_S)
                else:
                    await asyncio.wait([self._reader])
        except TimeoutError:
            pass
        finally:
            self._answers.cancel()  # nothing, if it has ended
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        """Put what comes, and what ends it, into the queue."""
        try:
            async for result, error in self._answers:
                self._items.put_nowait((arrival_s(), result, error))
            self._items.put_nowait(StreamEndedError())
        except Exception as error:  # whoever takes it knows what it means
            self._items.put_nowait(error)
