"""What makes no sense on a socket ends that connection: no request hangs, nobody else is harmed."""

import asyncio
import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.opening import open_engine
from nemotrt.serve.engine.admission import QueueLimits
from nemotrt.serve.engine.host import EngineHost
from nemotrt.serve.front.upstream.engine_upstream import EngineUpstream
from nemotrt.serve.front.upstream.upstream import UpstreamError
from nemotrt.serve.triton.model.relay import EngineUnavailableError, Relay
from nemotrt.wire.frames import HEADER, MAX_FRAME_BYTES, encode, read_frames
from nemotrt.wire.tensors import INPUTS

BOUND_S = 20
SETTINGS = settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
FIELDS = st.dictionaries(
    st.sampled_from(["text_output", "output_ids", "final", "error", "finish_reason"]), JSON
)
ITEMS = st.lists(st.tuples(st.integers(0, 3), FIELDS) | JSON, max_size=3)
DOWN = st.fixed_dictionaries({"op": st.sampled_from(["updates", "status", 5]), "items": ITEMS})
INPUT_NAMES = st.sampled_from([spec.name for spec in INPUTS if spec.name != "bad_words"])
UP = st.fixed_dictionaries(
    {"op": st.sampled_from(["submit", "submit", "cancel", "status", "metrics", "no"])},
    optional={
        "id": st.integers(0, 2) | JSON,
        "inputs": st.dictionaries(INPUT_NAMES, JSON, max_size=3).map(
            lambda inputs: {"text_input": "The", "max_tokens": 2} | inputs
        )
        | JSON,
    },
)
BROKEN = [
    HEADER.pack(MAX_FRAME_BYTES + 1),
    HEADER.pack(9) + b"{",
    HEADER.pack(2) + b"{x",
    HEADER.pack(200_000) + b"[" * 200_000,
    encode({"op": "updates"}),
    encode({"op": "updates", "items": [[1, {"error": 5, "final": True}]]}),
]


def broken(place: int) -> bytes:
    return BROKEN[place]


RAW = st.binary(max_size=64) | st.sampled_from(range(len(BROKEN))).map(broken)


class FakeEngine:
    """A listener at an engine's socket, which answers each connection with bytes of ours."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer = b""
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                try:
                    for frame in read_frames(client):
                        if frame["op"] == "submit":
                            client.sendall(self.answer)
                            break
                        client.sendall(encode({"op": "status", "max_seq_len": 9}))
                except OSError:
                    continue

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def fake(tmp_path):
    engine = FakeEngine(tmp_path / "engine.sock")
    yield engine
    engine.close()


GOOD = encode({"op": "updates", "items": [[1, {"final": True, "finish_reason": "stop"}]]})
BYTES_DOWN = RAW | DOWN.map(encode) | st.lists(DOWN.map(encode), max_size=3).map(b"".join)


async def outcome(upstream: EngineUpstream) -> list[dict[str, Any]]:
    fields = []
    try:
        async for update in upstream.generate({"text_input": "x"}):
            fields.append(update)
    except UpstreamError as error:
        assert error.code and error.message
    return fields


@SETTINGS
@given(BYTES_DOWN)
@example(encode({"op": "updates", "items": [[1, {"error": {}}]]}))
def test_the_front_ends_every_request_and_reconnects(fake, garbage) -> None:
    async def run() -> list[dict[str, Any]]:
        upstream = EngineUpstream(fake.path)
        fake.answer = garbage
        first = [outcome(upstream) for _ in range(3)]
        await asyncio.wait_for(asyncio.gather(*first), BOUND_S)
        upstream._ids = iter([1])  # so that the answer fits
        fake.answer = GOOD
        again = await asyncio.wait_for(outcome(upstream), BOUND_S)
        await upstream.close()
        return again

    again = asyncio.run(run())
    assert again in ([{"final": True, "finish_reason": "stop"}], [])  # []: the old line broke late


def test_the_front_answers_on_the_connection_after_a_broken_one(fake) -> None:
    async def run() -> None:
        upstream = EngineUpstream(fake.path)
        fake.answer = HEADER.pack(2) + b"{x"
        assert await asyncio.wait_for(outcome(upstream), BOUND_S) == []
        upstream._ids = iter([1])
        fake.answer = GOOD
        assert await asyncio.wait_for(outcome(upstream), BOUND_S)
        await upstream.close()

    asyncio.run(run())


@settings(SETTINGS, max_examples=25)
@given(BYTES_DOWN)
def test_tritons_relay_ends_every_request_and_reconnects(fake, garbage) -> None:
    fake.answer = garbage
    relay = Relay(str(fake.path))
    try:
        assert heard(relay)
        fake.answer = b""
        assert heard(relay)
    finally:
        relay.close()


def heard(relay: Relay) -> bool:
    """Whether a request that the relay takes ends."""
    is_over = threading.Event()

    def listener(fields: dict[str, Any]) -> None:
        {"text_output": "", "output_ids": []}["text_output"] + fields.get("text_output", "")
        if fields.get("final"):
            is_over.set()

    deadline = time.monotonic() + BOUND_S
    while time.monotonic() < deadline:
        try:
            relay.submit({"text_input": "x"}, listener)
        except EngineUnavailableError:
            time.sleep(0.01)
            continue
        return is_over.wait(BOUND_S)
    return False


@pytest.fixture(scope="module")
def host(engine_folder, tmp_path_factory):
    """A real engine host in this process."""
    path = tmp_path_factory.mktemp("host") / "engine.sock"
    host = EngineHost(open_engine(engine_folder, OpenOptions(1)), QueueLimits())
    listener = host.listen(path)
    thread = threading.Thread(target=host.serve, args=(listener,), daemon=True)
    thread.start()
    yield host, path
    host.loop.stop(0)
    thread.join()


def connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(BOUND_S)
    connection.connect(str(path))
    return connection


def answer(path: Path) -> dict[str, Any]:
    """Return the last fields of another client's request."""
    with connected(path) as connection:
        inputs = {"text_input": "The", "max_tokens": 2, "ignore_eos": True}
        connection.sendall(encode({"op": "submit", "id": 7, "inputs": inputs}))
        for frame in read_frames(connection):
            for _, fields in frame["items"]:
                if fields.get("final"):
                    return fields
    return {}


@SETTINGS
@given(st.lists(RAW | UP.map(encode), min_size=1, max_size=6))
@example([encode({"op": "submit", "id": 1, "inputs": {"text_input": "The"}})] * 2)
@example([encode({"op": "submit", "id": 1, "inputs": [1]})])
def test_the_engine_answers_others_whatever_a_client_sends(host, frames) -> None:
    engine_host, path = host
    with connected(path) as bad:
        with contextlib.suppress(OSError):  # it may hang up on us
            bad.sendall(b"".join(frames))
        assert answer(path).get("finish_reason") == "length"
    assert engine_host.loop.failure is None


@settings(SETTINGS, max_examples=30)
@given(st.lists(st.dictionaries(INPUT_NAMES, JSON), min_size=1, max_size=4))
def test_every_request_hears_of_its_end(host, requests) -> None:
    """A client that keeps to the frames gets one last update a request, whatever it asks."""
    _, path = host
    with connected(path) as connection:
        for number, inputs in enumerate(requests):
            inputs = {"text_input": "The", "max_tokens": 2} | inputs
            connection.sendall(encode({"op": "submit", "id": number, "inputs": inputs}))
            connection.sendall(encode({"op": "cancel", "id": number}))
        open_numbers = set(range(len(requests)))
        for frame in read_frames(connection):
            open_numbers -= {number for number, fields in frame["items"] if fields.get("final")}
            if not open_numbers:
                break
        assert not open_numbers


def test_a_closed_line_ends_with_the_client_told_why(host, caplog) -> None:
    _, path = host
    with connected(path) as bad:
        bad.sendall(HEADER.pack(2) + b"[]")
        assert bad.recv(1) == b""
    assert "a frame is not a JSON object" in caplog.text


def test_an_answer_too_large_for_a_frame_costs_its_own_request(host, monkeypatch) -> None:
    _, path = host
    monkeypatch.setattr("nemotrt.wire.frames.MAX_FRAME_BYTES", 400)
    with connected(path) as connection:
        small = {"text_input": "The", "max_tokens": 1}
        large = small | {"max_tokens": 200, "ignore_eos": True, "return_output_ids": True}
        for number, inputs in ((1, large), (2, small)):
            connection.sendall(encode({"op": "submit", "id": number, "inputs": inputs}))
        ends = {}
        for frame in read_frames(connection):
            ends |= {n: fields for n, fields in frame["items"] if fields.get("final")}
            if len(ends) == 2:
                break
    assert ends[1]["error"]["code"] == "answer_too_large"
    assert ends[2]["finish_reason"] == "length"


def test_a_request_too_large_for_a_frame_is_refused_before_it_is_sent(fake, monkeypatch) -> None:
    monkeypatch.setattr("nemotrt.wire.frames.MAX_FRAME_BYTES", 100)

    async def run() -> str:
        upstream = EngineUpstream(fake.path)
        with pytest.raises(UpstreamError, match="the limit is 100") as caught:
            await anext(upstream.generate({"text_input": "x" * 200}))
        return caught.value.code

    assert asyncio.run(run()) == "invalid_request"
