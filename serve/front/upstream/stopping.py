"""An upstream whose losses are told as what they are once the server stops."""

from collections.abc import AsyncIterator, Callable

from nemotrt.serve.front.upstream.upstream import Fields, Upstream, UpstreamError
from nemotrt.wire.frames import STOPPING

LOST = ("engine_failed", "engine_unavailable")


class StoppingUpstream:
    """Passes everything on; a request that a stop has cut off may go to another server."""

    def __init__(self, upstream: Upstream, is_stopping: Callable[[], bool]) -> None:
        """Stand before `upstream`."""
        self._upstream = upstream
        self._is_stopping = is_stopping

    async def generate(self, inputs: Fields) -> AsyncIterator[Fields]:
        """Yield what the upstream yields; raises as it does, and "shutting_down" for a loss."""
        found = self._upstream.generate(inputs)
        try:
            async for fields in found:
                yield fields
        except UpstreamError as error:
            if error.code in LOST and self._is_stopping():
                raise UpstreamError(**STOPPING) from error
            raise
        finally:
            await found.aclose()  # type: ignore[attr-defined]

    async def is_ready(self) -> bool:
        """Whether requests would be answered now."""
        return await self._upstream.is_ready()

    async def close(self) -> None:
        """Disconnect."""
        await self._upstream.close()
