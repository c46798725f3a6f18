"""Requests that take long to prepare hold nobody else up; compiled grammars are kept."""

import json
import socket
import threading
from typing import Any

import pytest

from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.opening import open_engine
from nemotrt.serve.engine import connection as connection_module
from nemotrt.serve.engine import preparation
from nemotrt.serve.engine.admission import QueueLimits
from nemotrt.serve.engine.host import EngineHost
from nemotrt.serve.engine.preparation import (
    LARGE_CHARACTERS,
    LIGHT_CHARACTERS,
    Preparation,
    work_size,
)
from nemotrt.serve.engine.submission import make_submission
from nemotrt.serve.grammar import cache as grammar_cache
from nemotrt.serve.grammar.cache import GrammarCache
from nemotrt.serve.grammar.grammar import GrammarCompiler
from nemotrt.wire.frames import encode, read_frames

BOUND_S = 20
SMALL = {"text_input": "The", "max_tokens": 2, "ignore_eos": True}


def schema(count: int) -> str:
    names = [f"p{i}" for i in range(count)]
    fields = {name: {"type": "integer"} for name in names}
    return json.dumps({"type": "object", "properties": fields, "required": names})


@pytest.fixture
def compiler(opened) -> GrammarCompiler:
    return GrammarCompiler(opened.tokenizer, opened.engine.vocab_size, opened.end_ids)


def test_the_same_grammar_is_compiled_once_and_copies_go_apart(compiler, monkeypatch) -> None:
    compiled = []
    original = GrammarCompiler._matcher

    def counting(self: GrammarCompiler, kind: str, guide: str) -> Any:
        compiled.append(kind)
        return original(self, kind, guide)

    monkeypatch.setattr(GrammarCompiler, "_matcher", counting)
    first, second = (compiler.guide("json_schema", schema(3)) for _ in range(2))
    assert compiled == ["json_schema"] and compiler.has("json_schema", schema(3))
    start = second.rule().mask
    first.push(int(first.rule().mask.argmax()), "")
    assert (second.rule().mask == start).all()
    assert (compiler.guide("json_schema", schema(3)).rule().mask == start).all()


def test_a_refusal_is_kept_as_a_grammar_is(compiler) -> None:
    for _ in range(2):
        with pytest.raises(Exception, match="refused"):
            compiler.guide("regex", "(")
    assert compiler.has("regex", "(")


class Matcher:
    def deep_copy(self) -> "Matcher":
        return self


def test_the_cache_is_bounded_by_number_and_size(monkeypatch) -> None:
    monkeypatch.setattr(grammar_cache, "MAX_GRAMMARS", 3)
    monkeypatch.setattr(grammar_cache, "MAX_CHARACTERS", 10)
    cache = GrammarCache()
    for guide in ("a", "b", "c", "a", "d"):
        cache.matcher("regex", guide, Matcher)
    assert [cache.has("regex", guide) for guide in "abcd"] == [True, False, True, True]
    cache.matcher("regex", "x" * 9, Matcher)
    assert [cache.has("regex", guide) for guide in "acd"] == [False, False, True]
    cache.matcher("regex", "y" * 11, Matcher)
    assert not cache.has("regex", "y" * 11)


def test_large_work_does_not_delay_small(monkeypatch) -> None:
    monkeypatch.setattr(preparation, "MAX_WAITING", 2)
    threads = Preparation()
    go, done = threading.Event(), threading.Event()
    results = [threads.run(go.wait, LARGE_CHARACTERS + 1) for _ in range(8)]
    assert results[0] and not results[-1]  # too much waits
    assert threads.run(done.set, LIGHT_CHARACTERS + 1)
    assert done.wait(BOUND_S)
    ran_here = []
    threads.run(lambda: ran_here.append(threading.current_thread()), LIGHT_CHARACTERS)
    assert ran_here == [threading.current_thread()]
    go.set()
    threads.close()


def test_the_size_of_the_work() -> None:
    assert work_size({"text_input": "abc", "stop_words": ["de"]}, is_compiled=False) == 6
    assert work_size({"input_ids": [1, 2], "stream": True}, is_compiled=False) == 2
    guided = {"guided_decoding_guide_type": "regex", "guided_decoding_guide": "a*"}
    assert work_size(guided, is_compiled=False) > LIGHT_CHARACTERS
    assert work_size(guided, is_compiled=True) < LIGHT_CHARACTERS


@pytest.fixture
def blocked(engine_folder, tmp_path, monkeypatch):
    """A host whose requests with a grammar are prepared once `go` is set."""
    go, begun, reached = threading.Event(), threading.Event(), []

    def slow(request_id: str, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
        if "guided_decoding_guide_type" in inputs:
            begun.set()
            assert go.wait(BOUND_S)
        return make_submission(request_id, inputs, *rest, **more)

    monkeypatch.setattr(connection_module, "make_submission", slow)
    host = EngineHost(open_engine(engine_folder, OpenOptions(1)), QueueLimits())
    submit = host.loop.submit
    monkeypatch.setattr(host.loop, "submit", lambda s: (reached.append(s), submit(s)))
    listener = host.listen(tmp_path / "engine.sock")
    thread = threading.Thread(target=host.serve, args=(listener,), daemon=True)
    thread.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(BOUND_S)
        client.connect(str(tmp_path / "engine.sock"))
        yield client, go, begun, reached
    go.set()
    host.loop.stop(0)
    thread.join()


def ends(client: socket.socket, count: int) -> dict[int, dict[str, Any]]:
    """Return the last fields of the next `count` requests to end."""
    found: dict[int, dict[str, Any]] = {}
    for frame in read_frames(client):
        found |= {number: fields for number, fields in frame["items"] if fields.get("final")}
        if len(found) == count:
            break
    return found


def test_a_request_behind_a_slow_one_is_answered_first(blocked) -> None:
    client, go, begun, _ = blocked
    guided = SMALL | {"guided_decoding_guide_type": "json"}
    client.sendall(encode({"op": "submit", "id": 1, "inputs": guided}))
    assert begun.wait(BOUND_S)
    client.sendall(encode({"op": "submit", "id": 2, "inputs": SMALL}))
    assert set(ends(client, 1)) == {2}
    go.set()
    assert "error" not in ends(client, 1)[1]


def test_a_request_cancelled_while_it_is_prepared_never_runs(blocked) -> None:
    client, go, begun, reached = blocked
    guided = SMALL | {"guided_decoding_guide_type": "json"}
    client.sendall(encode({"op": "submit", "id": 1, "inputs": guided}))
    assert begun.wait(BOUND_S)
    client.sendall(encode({"op": "cancel", "id": 1}))
    assert ends(client, 1) == {1: {"final": True, "finish_reason": "cancelled"}}
    go.set()
    client.sendall(encode({"op": "submit", "id": 2, "inputs": SMALL}))
    assert set(ends(client, 1)) == {2}
    assert [submission.request.request_id.partition(":")[2] for submission in reached] == ["2"]
