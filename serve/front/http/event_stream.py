"""Server-sent events whose source is closed as soon as the client has gone."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from starlette.types import Receive, Scope, Send

from nemotrt.serve.front.http.api_error import ApiError, note_error

DONE = b"data: [DONE]\n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
QUIET = b": still at work\n\n"
QUIET_S = 20.0
PADDED_BYTES = 64
Result = TypeVar("Result")


class ClientGoneError(Exception):
    """The client has disconnected: there is nobody to answer."""


class EventStream:
    """An ASGI response that sends chunks as events, and an error among them as the last.

    A refusal that comes before anything was sent is answered as such.
    """

    def __init__(
        self,
        chunks: AsyncIterator[list[dict[str, Any]]],
        end: bytes = DONE,
        *,
        is_padded: bool = False,
    ) -> None:
        """Prepare; nothing is sent before the first chunks are there, and `end` as the last."""
        self._chunks, self._end, self._event = chunks, end, padded if is_padded else event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the chunks end or the client goes; a refusal keeps its own status."""
        try:
            await until_gone(self._send_all(scope, receive, send), receive)
        except (ClientGoneError, OSError):
            return

    async def _send_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        line = EventLine(send)
        quiet = asyncio.ensure_future(line.keep_alive())
        try:
            async for chunks in self._chunks:
                await line.send(b"".join(map(self._event, chunks)))
        except ApiError as error:
            if not line.has_begun:
                await error.answer(scope, receive, send)
                return
            note_error(scope, error)
            await line.send(event(error.body_for(scope["path"])))
        finally:
            quiet.cancel()
        await line.send(self._end, more=False)


class EventLine:
    """The way to a client, on which a comment goes while there is nothing to say.

    Proxies give up a connection that is silent for a minute, which a long prompt takes on a CPU.
    """

    def __init__(self, send: Send) -> None:
        """Wait for the first events."""
        self.has_begun = False
        self._send = send
        self._told_s = asyncio.get_running_loop().time()
        self._lock = asyncio.Lock()

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Send events, after the head of the answer."""
        async with self._lock:
            if not self.has_begun:
                self.has_begun = True
                await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
            self._told_s = asyncio.get_running_loop().time()

    async def keep_alive(self) -> None:
        """Send a comment whenever nothing was sent for a while, until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(max(0.0, self._told_s + QUIET_S - clock()))
            if clock() >= self._told_s + QUIET_S:
                await self.send(QUIET)


def event(chunk: dict[str, Any]) -> bytes:
    """Return one event; a chunk that has a type is an event of that name."""
    text = json.dumps(chunk, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    name = f"event: {chunk['type']}\n" if "type" in chunk else ""
    return f"{name}data: {text}\n\n".encode()


def padded(chunk: dict[str, Any]) -> bytes:
    """Return one event, filled up with random characters to a multiple of `PADDED_BYTES`.

    Of OpenAI's typed events those that hold a piece of the answer are filled up.
    """
    if not chunk.get("type", ".delta").endswith(".delta"):
        return event(chunk)
    num_missing = -len(event({**chunk, "obfuscation": ""})) % PADDED_BYTES
    return event({**chunk, "obfuscation": secrets.token_urlsafe(PADDED_BYTES)[:num_missing]})


async def until_gone(work: Coroutine[Any, Any, Result], receive: Receive) -> Result:
    """Return the result of `work`, which is cancelled if the client goes first.

    The request's body must have been read.

    Raises:
        ClientGoneError: it has gone.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGoneError
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    """Return once the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
