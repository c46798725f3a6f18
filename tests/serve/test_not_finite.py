"""An engine whose logits are no numbers: what its client, the counters and the wire see."""

import asyncio
import json
import math
import socket
from dataclasses import replace

import httpx
import numpy as np
import pytest

from nemotrt.serve.engine.admission import QueueLimits
from nemotrt.serve.engine.delivery import Fields
from nemotrt.serve.engine.host import EngineHost
from nemotrt.serve.engine.loop import EngineLoop
from nemotrt.serve.engine.submission import make_submission
from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.http.event_stream import event
from nemotrt.serve.front.openai.engine_files import read_engine_files
from nemotrt.serve.front.upstream.engine_upstream import EngineUpstream
from nemotrt.wire.frames import encode
from nemotrt.wire.tensors import input_value

BAD = [math.nan, math.inf, -math.inf]


class Spoiled:
    """The real engine, but for logits of slot 0 that are `bad` once it has been fed `word`."""

    def __init__(self, engine, bad: float, marker: int) -> None:
        self._engine, self._bad, self._marker = engine, bad, marker
        self._spoiled: set[int] = set()

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def release(self, slot: int) -> None:
        self._spoiled.discard(slot)
        self._engine.release(slot)

    def step(self, feeds):
        logits = np.array(self._engine.step(feeds))
        self._spoiled |= {feed.slot for feed in feeds if self._marker in feed.tokens}
        for row, feed in zip(logits, feeds, strict=True):
            if feed.slot in self._spoiled:
                row[17] = self._bad
        return logits


@pytest.fixture(params=BAD)
def spoiled(request, opened):
    marker = opened.tokenizer.encode(" zzz", add_special_tokens=False)[-1]
    return replace(opened, engine=Spoiled(opened.engine, request.param, marker))


@pytest.mark.parametrize("asked", [{}, {"return_log_probs": True}, {"temperature": 1.0}])
def test_the_loop_reports_and_counts_it_and_the_others_go_on(spoiled, solo, asked) -> None:
    loop = EngineLoop(spoiled.scheduler(), QueueLimits())
    loop.start()
    heard: dict[str, list[Fields]] = {"bad": [], "good": []}
    for name, text in (("bad", "The zzz"), ("good", "The")):
        values = {"text_input": text, "max_tokens": 8} | (asked if name == "bad" else {})
        loop.submit(make_submission(name, values, spoiled, None, heard[name].append))
    loop.stop(20)
    loop.join()
    assert heard["bad"][-1]["error"]["code"] == "logits_not_finite"
    assert "not finite" in heard["bad"][-1]["error"]["message"]
    assert heard["good"][-1]["text_output"] == solo("The", max_tokens=8)["text"]
    metrics = loop.telemetry.text({})
    assert "nemotrt_nonfinite_logits_total 1.0" in metrics
    assert 'nemotrt_requests_total{outcome="logits_not_finite"} 1.0' in metrics
    assert loop.failure is None


def test_the_counter_reads_0_before_anything_fails(opened) -> None:
    loop = EngineLoop(opened.scheduler(), QueueLimits())
    assert "nemotrt_nonfinite_logits_total 0.0" in loop.telemetry.text({})


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_front_answers_with_500_or_an_error_event(
    spoiled, engine_folder, tmp_path, path, stream
) -> None:
    host = EngineHost(spoiled, QueueLimits())
    host.loop.start()
    listener = host.listen(tmp_path / "socket")
    import threading

    threading.Thread(target=host._accept, args=(listener,), daemon=True).start()
    spec = FrontSpec("llm", read_engine_files(engine_folder), EngineUpstream(tmp_path / "socket"))
    prompt = {"messages": [{"role": "user", "content": "x zzz"}], "logprobs": True}
    body = prompt if path.startswith("chat") else {"prompt": "The zzz", "logprobs": 1}

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=create_app(spec))
        async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
            answer = await client.post(
                f"/v1/{path}", json={"model": "llm", "stream": stream, **body}
            )
        await spec.upstream.close()
        return answer

    answer = asyncio.run(ask())
    host.loop.stop(5)
    host.loop.join()
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "logits_not_finite"
    assert "not finite" in answer.json()["error"]["message"]


@pytest.mark.parametrize("bad", BAD)
def test_no_writer_of_ours_writes_what_json_has_not(bad) -> None:
    for write in (encode, event):
        with pytest.raises(ValueError, match="JSON"):
            write({"items": [[1, {"output_log_probs": [bad]}]]})
    with pytest.raises(ValueError, match="temperature must be a finite number"):
        input_value("temperature", [bad])


@pytest.mark.parametrize("bad", BAD)
def test_a_frame_with_a_number_that_json_has_not_costs_its_own_request(bad, opened) -> None:
    """The connection's writer must go on: it is everybody's."""
    from nemotrt.serve.engine.connection import ClientConnection
    from nemotrt.serve.engine.preparation import Preparation
    from nemotrt.wire.frames import read_frames

    loop = EngineLoop(opened.scheduler(), QueueLimits())
    loop.start()
    ours, theirs = socket.socketpair()
    connection = ClientConnection(
        ours, opened, loop, lambda gone: None, lambda: "", None, Preparation()
    )
    connection._pending = [(1, {"text_output": "a"}), (2, {"output_log_probs": [bad]})]
    connection.start()
    connection.flush()
    connection.close()
    items = [item for frame in read_frames(theirs) for item in frame["items"]]
    theirs.close()
    loop.stop(1)
    loop.join()
    assert items[0] == [1, {"text_output": "a"}]
    assert items[1][1]["error"]["code"] == "logits_not_finite"
    json.dumps(items, allow_nan=False)
