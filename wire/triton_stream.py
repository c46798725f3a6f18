"""A streamed call to Triton that is ended without cancelling it, where the model allows that."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Generic, TypeVar

END_TIMEOUT_S = 5.0
STOP_AGAIN_S = 0.2
Item = TypeVar("Item")
Stop = Callable[[], Awaitable[bool]]  # asks the model once; False: no use to ask again


class StreamEndedError(Exception):
    """The server ended the call."""


class TritonStream(Generic[Item]):
    """The responses of one call, read in a task of its own: a cancelled reader cancels its call.

    Triton 2.51 may crash when calls are cancelled (once in 27,000 requests of the storm in
    tests/serve; a race in its gRPC frontend, fixed upstream later), and a call that is cancelled
    after its last response costs it 2 KB for good (measured).
    """

    def __init__(self, answers: AsyncIterable[Item], cancel: Callable[[], object]) -> None:
        """Begin to read `answers`; `cancel` cancels their call, or does nothing if it has ended."""
        self._answers, self._cancel = answers, cancel
        self._items: asyncio.Queue[Item | Exception] = asyncio.Queue()
        self._reader = asyncio.create_task(self._read())

    async def next(self) -> Item:
        """Return the next response; StreamEndedError behind the last, or what broke the call."""
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def end(self, stop: Stop | None) -> None:
        """Wait for the call's end, asking for it with `stop`; cancel it when that is no use.

        A stop may overtake its request, so it is sent again.
        """
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
            self._cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        """Put what comes, and what ends it, into the queue."""
        end: Exception = StreamEndedError()
        try:
            async for item in self._answers:
                self._items.put_nowait(item)
        except Exception as error:  # whoever takes it knows what it means
            end = error
        finally:
            self._items.put_nowait(end)  # whoever waits goes on, also when the call was cancelled
