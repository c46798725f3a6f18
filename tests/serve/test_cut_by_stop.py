"""Requests that a stop cuts off before the engine has them: to be tried elsewhere, no fault."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.upstream.upstream import Fields
from support.saying_upstream import CHAT_BODY, FILES, Client, SayingUpstream


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


class Stopping(SayingUpstream):
    """Is told to stop while a request is under way, and fails it."""

    is_stopping = False
    stops = True

    async def generate(self, inputs: Fields) -> AsyncIterator[Fields]:
        async for fields in super().generate(inputs):
            yield fields
            self.is_stopping = self.stops

    def told(self) -> bool:
        return self.is_stopping


def client(upstream: Stopping, runner: asyncio.Runner) -> Client:
    return Client(create_app(FrontSpec("llm", FILES, upstream, is_draining=upstream.told)), runner)


def test_a_loss_while_the_server_stops_is_a_503(runner: asyncio.Runner) -> None:
    upstream = Stopping()
    upstream.fails_after = 2
    done = client(upstream, runner).post("/v1/chat/completions", json=CHAT_BODY)
    error = done.json()["error"]
    assert (done.status_code, error["code"]) == (503, "shutting_down"), error
    assert done.headers["retry-after"] == "1" and "try another one" in error["message"]


def test_a_stream_says_so_and_has_no_finish_reason(runner: asyncio.Runner) -> None:
    upstream = Stopping()
    upstream.fails_after = 2
    text = (
        client(upstream, runner)
        .post("/v1/chat/completions", json=CHAT_BODY | {"stream": True})
        .text
    )
    assert '"code":"shutting_down"' in text and '"finish_reason":"stop"' not in text


def test_otherwise_it_is_the_engine_s_fault(runner: asyncio.Runner) -> None:
    upstream = Stopping()
    upstream.fails_after, upstream.stops = 2, False
    done = client(upstream, runner).post("/v1/chat/completions", json=CHAT_BODY)
    assert (done.status_code, done.json()["error"]["code"]) == (500, "engine_failed")
