"""The OpenAI and gRPC targets against scripted servers, and server-sent events."""

import re
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.profiles.load.http.event_parser import EventParser
from nemotrt.profiles.load.targets.opening import open_target
from nemotrt.profiles.load.targets.options import ServerProtocol, TargetOptions
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.runs import measure

THREADS = TargetOptions(opening=OpenOptions(num_threads=1))
SMALL = Workload(isl=16, osl=12, num_requests=4, concurrency=2, num_warmup=1)


def profile(url, script, *, workload=SMALL, **options):
    options = TargetOptions(tokenizer="tiny-dense", extra=script, **options)
    return measure.run(open_target(url, workload, options), workload)


@pytest.mark.parametrize("protocol", [ServerProtocol.OPENAI, ServerProtocol.OPENAI_CHAT])
@pytest.mark.parametrize("reports", ["none", "each"])
def test_openai(scripted, protocol, reports):
    script = {"script": {"ttft_ms": 30, "itl_ms": 4, "tokens_per_response": 2, "reports": reports}}
    result = profile(scripted.url, script, protocol=protocol)
    assert result.status == "complete", result.reason
    measured = [r for r in result.requests if r.phase == "measured"]
    assert all(r.arrival_tokens == (2,) * 6 for r in measured)
    assert all(r.finish_reason == "length" for r in measured)
    assert result.metric("ttft_ms", "min") >= 30


@pytest.mark.parametrize("protocol", ["openai", "openai-chat"])
def test_last_tokens_without_a_text_count(scripted, protocol):
    """As of an ignored end mark: no text comes, and the end says how many tokens there were."""
    script = {"script": {"reports": "each", "silent": 3}}
    result = profile(scripted.url, script, protocol=ServerProtocol(protocol))
    assert result.status == "complete", result.reason
    assert {r.arrival_tokens for r in result.requests if r.phase == "measured"} == {(1,) * 9 + (3,)}


def test_a_server_that_hangs_up_after_an_answer_gets_a_new_connection(scripted):
    """It said that it keeps the connection; nothing of the next request had been read."""
    result = profile(f"{scripted.url}/v1", {"script": {"hangs_up": True}})
    assert result.status == "complete", result.reason
    assert sum(r.is_complete for r in result.requests if r.phase == "measured") == 4


def test_an_answer_without_a_token_is_no_success(scripted):
    """The stream is whole: a finish reason, [DONE], and nothing said."""
    script = {"script": {"fault": "empty", "after": 0}}
    result = profile(f"{scripted.url}/v1", script)
    assert result.status == "failed"
    assert "brought 0 tokens in 0 responses where" in result.reason
    assert not any(request.is_complete for request in result.requests)


def test_a_server_that_counts_nothing_is_noted(scripted):
    """Without usage each response is one token, which is the user's to know."""
    for fields, is_noted in (({}, False), ({"stream_options": None}, True)):
        result = profile(f"{scripted.url}/v1", fields)
        assert result.status == "complete", result.reason
        notes = [note for note in result.notes if "each response counts as one token" in note]
        assert len(notes) == is_noted


def test_an_address_that_ends_in_v1_is_openai(scripted):
    assert profile(f"{scripted.url}/v1", {}).target["kind"] == "openai-completions"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("short", "brought 4 tokens"),
        ("truncate", "closed"),
        ("error", "boom"),
        ("old-error", "boom"),
        ("refuse", "503"),
        ("not-json", "not JSON"),
        ("no-choice", "None where a choice belongs"),
        ("no-done", r"without \[DONE\]"),
        ("no-finish", "without a finish reason"),
        ("empty", "brought 3 tokens in 3 responses where"),
    ],
)
def test_openai_faults(scripted, fault, reason):
    result = profile(f"{scripted.url}/v1", {"script": {"fault": fault}})
    assert result.status == "failed"
    assert re.search(reason, result.reason)


def test_openai_checks_the_prompt_length(scripted):
    result = profile(f"{scripted.url}/v1", {"script": {"num_input_tokens": 15}})
    assert "read 15 prompt tokens where 16 were meant" in result.reason


def test_grpc(scripted_grpc):
    result = profile(scripted_grpc.url, {})
    assert result.status == "complete", result.reason
    assert result.metric("itl_ms", "mean") >= 4
    assert all(r.arrival_tokens == (1,) * 12 for r in result.requests if r.phase == "measured")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("error", "boom"),
        ("stall", "sent nothing for 0.5 s"),
        ("end", "before the final response"),
        ("short", "brought 2 tokens in 2 responses where"),
        ("die", "broke off"),
    ],
)
def test_grpc_faults(scripted_grpc, fault, reason):
    result = profile(scripted_grpc.url, {"fault": fault}, stall_timeout_s=0.5)
    assert result.status == "failed"
    assert reason in result.reason


@pytest.mark.parametrize("cached", [0, 9, None])
def test_triton_tells_what_was_cached(scripted, scripted_grpc, cached):
    """With the first response, over both protocols; what is not told is no 0."""
    http = profile(scripted.url, {"script": {"num_cached_tokens": cached}})
    grpc = profile(scripted_grpc.url, {"cached": cached})
    for result in (http, grpc):
        assert result.status == "complete", result.reason
        told = {r.cached_tokens for r in result.requests if r.phase == "measured"}
        assert told == {cached}


def test_what_a_model_declares_is_what_it_gets(scripted, scripted_grpc):
    """Null takes an input away; what is not declared is not sent, what the user adds is."""
    assert profile(scripted.url, {"min_tokens": None, "max_tokens": None}).status == "failed"
    result = profile(scripted.url, {"min_tokens": None})
    assert result.status == "complete", result.reason
    [first, *_] = scripted_inputs = [entry["inputs"] for entry in _log(scripted)]
    assert "min_tokens" not in scripted_inputs[-1]
    assert "return_num_input_tokens" not in first
    assert profile(scripted_grpc.url, {"stream": None}).status == "complete"


def _log(server):
    return server.log()["requests"]


def test_grpc_unfit(scripted_grpc):
    with pytest.raises(EnvironmentUnfitError, match="not ready"):
        profile(scripted_grpc.url, {}, model="other")
    with pytest.raises(EnvironmentUnfitError, match="nothing answers"):
        profile("grpc://127.0.0.1:9", {})


LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@given(
    st.lists(st.text(st.characters(blacklist_characters="\r\n", codec="utf-8")), max_size=5),
    LINE_ENDS,
    st.data(),
)
def test_events_survive_any_cut(texts, end, data):
    body = "".join(f": note{end}event: x{end}data: {text}{end}{end}" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    stream, found = EventParser(), []
    for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True):
        found += stream.feed(body[start:stop])
    found += stream.feed(b"\n") if end == "\r" else []  # a lone CR waits for what follows
    assert [item.decode() for item in found] == texts


def test_data_of_several_lines_is_joined():
    assert EventParser().feed(b"data: a\ndata:b\n\ndata: c\n") == [b"a\nb"]


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        (
            "http://x:1",
            TargetOptions(opening=OpenOptions(1)),
            "--threads is for an engine directory",
        ),
        (
            "grpc://x:1",
            TargetOptions(opening=OpenOptions(1)),
            "--threads is for an engine directory",
        ),
        ("folder", TargetOptions(protocol=ServerProtocol.OPENAI), "--protocol is for a server"),
        ("folder", TargetOptions(headers={"a": "b"}), "--header is for a server"),
        ("folder", TargetOptions(extra={"a": 1}), "--extra is for a server"),
    ],
)
def test_options_of_the_other_kind_of_target_are_refused(
    address: str, options: TargetOptions, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_target(address, SMALL, options)


def test_what_a_target_says_of_itself(scripted, scripted_grpc, engine_folder):
    """Only an engine in this process stamps arrivals itself; only OpenAI's endpoints are that."""
    options = TargetOptions(tokenizer="tiny-dense", model="m", headers={"A": "b"})
    for url in (scripted.url, scripted_grpc.url):
        target = open_target(url, SMALL, options)
        assert (target.stamps_itself, target.openai, [*target.steps]) == (False, None, [])
    for protocol in (ServerProtocol.OPENAI, ServerProtocol.OPENAI_CHAT):
        target = open_target(f"{scripted.url}/v1", SMALL, replace(options, protocol=protocol))
        api = target.openai
        assert (api.url, api.model, api.headers) == (scripted.url, "m", {"A": "b"})
        assert api.is_chat is (protocol is ServerProtocol.OPENAI_CHAT)
        assert api.fields(7)["max_tokens"] == 7
    engine = open_target(str(engine_folder), SMALL)
    assert engine.stamps_itself and engine.openai is None


def test_grpc_without_nvidias_client_says_what_to_install(monkeypatch):
    for module in ("profiles.load.targets.triton_grpc", "wire.triton.stream"):
        monkeypatch.delitem(sys.modules, f"nemotrt.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(EnvironmentUnfitError, match=r"pip install 'nemotrt\[serve\]'"):
        open_target("grpc://127.0.0.1:1", SMALL, TargetOptions(tokenizer="tiny-dense"))
