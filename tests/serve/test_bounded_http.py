"""Heads, bodies and connections that never end, on the real front's protocol."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.server import ServerState

from nemotrt.serve.front.http import access
from nemotrt.serve.front.http.access import AccessGate, ApiKeys
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.http.connections import bounded_http
from nemotrt.serve.front.http.connections.bounded_http import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    BoundedProtocol,
)
from nemotrt.serve.processes import host
from support.cpu_time import cpu_seconds

BOUND_S = 20
PARTS = (b"", b"one, ", b"two")
Talk = Callable[[bytes], bytes]


async def echo(request: Request) -> Response:
    try:
        return JSONResponse({"num_bytes": len(await request.body())})
    except ClientDisconnect:
        return Response(status_code=499)


async def early(request: Request) -> Response:
    return JSONResponse({"early": True})


async def stream(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for part in PARTS:
            await asyncio.sleep(0.1)
            yield part

    return StreamingResponse(parts())


async def refused(request: Request, error: Any) -> Response:
    return error.response()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    app = Starlette(
        routes=[
            Route("/", echo, methods=["GET", "POST"]),
            Route("/stream", stream),
            Route("/early", early, methods=["POST"]),
            Route("/v1/messages{rest:path}", echo, methods=["POST"]),
        ],
        middleware=[Middleware(AccessGate, keys=ApiKeys(), max_body_bytes=1000)],
        exception_handlers={ApiError: refused},
    )
    config = uvicorn.Config(app, port=0, http=BoundedProtocol, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        pass
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def sent(port: int, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """Return all that the server says to some bytes before it hangs up."""

    async def run() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
        except OSError:
            pass  # it has hung up
        try:
            return await asyncio.wait_for(reader.read(), BOUND_S)
        except OSError:
            return b""
        finally:
            writer.close()

    return asyncio.run(run())


def status(answer: bytes) -> tuple[int, str]:
    """Return an answer's status and error code."""
    head, _, body = answer.partition(b"\r\n\r\n")
    value = json.loads(body)
    return int(head.split()[1]), value.get("error", {}).get("code", "")


CLOSE = b"host: x\r\nconnection: close\r\n"


def test_an_ordinary_request_is_answered(port) -> None:
    headers = b"".join(b"x-%d: 1\r\n" % i for i in range(MAX_HEADERS - 3))
    body = b"POST / HTTP/1.1\r\n" + CLOSE + headers + b"content-length: 5\r\n\r\nhello"
    assert status(sent(port, body)) == (200, "")


@pytest.mark.parametrize(
    "pieces",
    [
        [b"".join(b"x-%d: 1\r\n" % i for i in range(MAX_HEADERS + 1)) + b"\r\n"],
        [b"x: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n"],
        [b"x: ", *[b"a" * 4096] * 20],  # one header without an end
        [b"x-%d: aaaaaaaa\r\n" % i for i in range(5000)],
        [b"".join(b"x-%d: %s\r\n" % (i, b"a" * 1000) for i in range(60)) + b"\r\n"],
    ],
    ids=["many", "long", "endless", "endless many", "many long"],
)
def test_a_head_beyond_a_limit_is_refused_by_name(port, pieces) -> None:
    answer = sent(port, b"GET / HTTP/1.1\r\n" + CLOSE, *pieces)
    assert answer == b"" or status(answer) == (431, "headers_too_large")


@pytest.mark.parametrize("path", [b"/v1/messages", b"/v1/messages/count_tokens?beta=true"])
def test_anthropics_doors_have_anthropics_form(port, path, monkeypatch) -> None:
    monkeypatch.setattr(bounded_http, "BODY_S", 0.3)
    head = b"POST " + path + b" HTTP/1.1\r\n" + CLOSE
    large = b"x: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n"
    late = b"content-length: 100\r\n\r\na"
    for rest, code in ((large, "headers_too_large"), (late, "request_timeout")):
        answer = sent(port, head + rest)
        error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert error["type"] == "invalid_request_error"
        assert error["details"] == {"error_code": code}


def test_an_address_without_an_end_is_refused(port) -> None:
    whole = b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\n" + CLOSE + b"\r\n"
    assert status(sent(port, whole)) == (431, "headers_too_large")
    endless = sent(port, b"GET /", *[b"a" * 4096] * 9, pause_s=0.01)
    assert endless == b"" or status(endless)[0] == 431  # it may hang up on what it does not read


def test_what_is_no_http_is_refused(port) -> None:
    assert status(sent(port, b"\x16\x03\x01 no\r\n\r\n")) == (400, "http_error")


def test_a_head_that_does_not_end_runs_out_of_time(port, monkeypatch) -> None:
    monkeypatch.setattr(bounded_http, "HEAD_S", 0.3)
    head = b"POST / HTTP/1.1\r\n" + CLOSE + b"x: 1\r\n"
    assert status(sent(port, head)) == (408, "request_timeout")


def test_a_body_that_does_not_end_runs_out_of_time(port, monkeypatch) -> None:
    monkeypatch.setattr(bounded_http, "BODY_S", 0.3)
    head = b"POST / HTTP/1.1\r\n" + CLOSE
    slow = sent(port, head + b"content-length: 100\r\n\r\na")
    assert status(slow) == (408, "request_timeout")
    chunked = sent(port, head + b"transfer-encoding: chunked\r\n\r\n", b"1\r\na\r\n")
    assert status(chunked) == (408, "request_timeout")
    monkeypatch.setattr(
        bounded_http, "BODY_S", 2.0
    )  # the answer is out before, on a busy machine too
    late = sent(port, head.replace(b"/ ", b"/early ", 1) + b"content-length: 100\r\n\r\n", b"a")
    assert status(late)[0] in (200, 408)  # an early answer does not wait for the body; then the end


def test_a_body_beyond_the_limit_is_refused(port) -> None:
    head = b"POST / HTTP/1.1\r\n" + CLOSE
    for length in (b"1001", b"9" * 30, b"9" * 15):
        answer = sent(port, head + b"content-length: " + length + b"\r\n\r\n")
        assert status(answer)[0] in (400, 413)
    chunks = [b"100\r\n" + b"a" * 256 + b"\r\n"] * 5
    answer = sent(port, head + b"transfer-encoding: chunked\r\n\r\n", b"".join(chunks))
    assert status(answer)[0] == 413


def test_bodies_together_have_a_limit_which_ends_with_them(port, monkeypatch) -> None:
    monkeypatch.setattr(access, "MAX_BODIES", 1)
    body = b"POST / HTTP/1.1\r\n" + CLOSE + b"content-length: 900\r\n\r\n"

    async def run() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(body + b"a" * 899)
        await writer.drain()
        await asyncio.sleep(0.3)
        second = await asyncio.to_thread(sent, port, body + b"a" * 900)
        assert status(second) == (503, "queue_full")
        writer.write(b"a")
        assert status(await asyncio.wait_for(reader.read(), BOUND_S)) == (200, "")
        writer.close()

    asyncio.run(run())
    assert status(sent(port, body + b"a" * 900)) == (200, "")


def test_idle_connections_make_room_for_new_ones(port, monkeypatch) -> None:
    monkeypatch.setattr(bounded_http, "most_connections", lambda: 20)

    async def run() -> int:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        for _, writer in idle[::2]:
            writer.write(b"GET / HTTP/1.1\r\nx: ")  # a head that does not come
        request = b"GET / HTTP/1.1\r\n" + CLOSE + b"\r\n"
        for _ in range(5):
            assert status(await asyncio.to_thread(sent, port, request)) == (200, "")
        for _ in range(100):  # an end takes its time to be seen
            num_open = sum(not reader.at_eof() for reader, _ in idle)
            if num_open <= 20:
                break
            await asyncio.sleep(0.05)
        for _, writer in idle:
            writer.close()
        return num_open

    assert asyncio.run(run()) <= 20


def test_the_limit_of_connections_fits_the_limit_of_files() -> None:
    assert 1 <= bounded_http.most_connections.__wrapped__() <= bounded_http.MAX_CONNECTIONS


def test_http_1_0_is_sent_no_chunks(port) -> None:
    """RFC 9112, 6.1: no transfer coding; what has no length ends with the connection."""
    for method, whole in ((b"GET", b"".join(PARTS)), (b"HEAD", b"")):
        told = sent(port, method + b" /stream HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        head, _, body = told.partition(b"\r\n\r\n")
        assert body == whole
        assert b"transfer-encoding" not in head and b"connection: close" in head
    newer = sent(port, b"GET /stream HTTP/1.1\r\n" + CLOSE + b"\r\n")
    assert newer.endswith(b"5\r\none, \r\n3\r\ntwo\r\n0\r\n\r\n")
    assert b"\r\nconnection: close" in newer
    sized = sent(port, b"POST / HTTP/1.0\r\ncontent-length: 5\r\n\r\nhello")
    assert b"content-length: 15" in sized and status(sized) == (200, "")


OFFERS = {
    "h2c": b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
    "websocket": b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n",
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("is_split", [False, True])
def test_an_offer_of_another_protocol_is_passed_over(port, offer, is_split) -> None:
    """The body is read, and the connection goes on: Java's HttpClient offers h2c to everybody."""
    head = b" / HTTP/1.1\r\nhost: x\r\n" + offer
    sized = b"POST" + head + b"content-length: 5\r\n\r\nhello"
    chunked = (
        b"POST" + head + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n4\r\nllo!\r\n0\r\n\r\n"
    )
    none = b"GET" + head + b"\r\n"
    last = b"POST / HTTP/1.1\r\n" + CLOSE + b"content-length: 1\r\n\r\nh"
    whole = sized + chunked + none + 300 * none + sized + last
    cuts = range(0, len(sized + chunked), 7) if is_split else [0]
    pieces = [whole[a:b] for a, b in zip(cuts, [*cuts[1:], None], strict=True)]
    answer = sent(port, *pieces, pause_s=0.001 if is_split else 0)
    found = [int(n) for n in re.findall(rb'"num_bytes":(\d+)', answer)]
    assert found == [5, 6, 0, *[0] * 300, 5, 1]


def test_what_is_wrong_behind_a_request_is_answered_behind_it(port) -> None:
    first = b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n"
    for num_before in (1, 2):
        answer = sent(port, num_before * first + b"NO HTTP\r\n\r\n")
        assert answer.count(b"two\r\n0\r\n\r\n") == num_before
        assert status(b"HTTP/1.1" + answer.rpartition(b"HTTP/1.1")[2]) == (400, "http_error")


def test_the_clock_of_a_body_stands_while_others_are_answered(port, monkeypatch) -> None:
    """Nothing is read of it meanwhile."""
    monkeypatch.setattr(bounded_http, "BODY_S", 0.2)
    first = b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n"
    second = b"POST / HTTP/1.1\r\n" + CLOSE + b"content-length: 5\r\n\r\n"
    answer = sent(port, 2 * first + second + b"he", b"llo", pause_s=0.1)
    assert answer.count(b"two\r\n0\r\n\r\n") == 2
    assert b'{"num_bytes":5}' in answer
    late = sent(port, first + second + b"he")
    assert late.count(b"two\r\n0\r\n\r\n") == 1
    assert status(b"HTTP/1.1" + late.rpartition(b"HTTP/1.1")[2]) == (408, "request_timeout")


class Line(asyncio.Transport):
    """A connection that says nothing."""

    is_closed = False

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


def test_a_flood_of_connections_costs_little(monkeypatch) -> None:
    """10,000 take no time in which the front would seem to hang; the newest stay."""
    monkeypatch.setattr(bounded_http, "most_connections", lambda: 4096)
    config, state = uvicorn.Config(echo, log_config=None), ServerState()
    lines = [Line() for _ in range(10_000)]

    async def run() -> float:
        loop = asyncio.get_running_loop()

        def flood() -> None:
            for line in lines:
                BoundedProtocol(config, state, {}, loop).connection_made(line)

        spent_s = cpu_seconds(flood)
        for one in list(state.connections):
            one.connection_lost(None)
        return spent_s

    assert asyncio.run(run()) < 3.0
    assert [line.is_closed for line in lines[: 10_000 - 4096]] == [True] * (10_000 - 4096)
    assert all(map(Line.is_closing, lines))  # connection_lost closes the rest


def test_a_connection_is_idle_from_its_last_answer_on(port, monkeypatch) -> None:
    monkeypatch.setattr(bounded_http, "most_connections", lambda: 2)
    get = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"

    async def run() -> tuple[bool, bool]:
        first, other = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for _ in range(2):
            first[1].write(get)
            await first[0].readuntil(b"}")
        third = await asyncio.open_connection("127.0.0.1", port)
        third[1].write(get)
        await third[0].readuntil(b"}")
        first[1].write(get)
        is_kept = b"200" in await first[0].readuntil(b"}")
        is_closed = await asyncio.wait_for(other[0].read(), BOUND_S) == b""
        for _, writer in (first, other, third):
            writer.close()
        return is_kept, is_closed

    assert asyncio.run(run()) == (True, True)


def test_files_are_left_for_connections_that_wait(monkeypatch) -> None:
    """Asyncio takes all that wait before one is closed."""
    for limit in (256, 1024, 4096, 20_000):
        monkeypatch.setattr(host.resource, "getrlimit", lambda _, n=limit: (n, n))
        monkeypatch.setattr(host.resource, "setrlimit", lambda *_: None)
        for cached in ("most_connections", "backlog", "_spare_files"):
            plain = getattr(bounded_http, cached).__wrapped__
            monkeypatch.setattr(bounded_http, cached, plain)
        total = bounded_http.most_connections() + bounded_http.backlog()
        assert total + bounded_http.SPARE_FILES <= limit
        monkeypatch.undo()
