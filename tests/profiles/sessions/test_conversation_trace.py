"""Recorded conversations: AIPerf's multi-turn form, what is ours, and what is refused, by line."""

import itertools
import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.errors import ConfigError
from nemotrt.profiles.command import profile
from nemotrt.profiles.load.choice.choice import choose
from nemotrt.profiles.load.choice.options import LoadChoice
from nemotrt.profiles.load.choice.trace import read_trace
from nemotrt.profiles.load.targets.opening import open_target
from nemotrt.profiles.load.targets.options import ServerProtocol, TargetOptions
from nemotrt.profiles.load.workload import (
    Arrival,
    Conversation,
    TracedSessions,
    Turn,
    Workload,
)
from nemotrt.profiles.runs.aiperf.child import OFFLINE
from nemotrt.profiles.runs.aiperf.invocation import write_tokenizer
from nemotrt.profiles.runs.record.result import read_result
from nemotrt.profiles.runs.run_folder import read_run

TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}


def user(text):
    return {"role": "user", "content": text}


def written(tmp_path, *lines):
    file = tmp_path / "trace.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def read(tmp_path, *lines, **options):
    found = read_trace(written(tmp_path, *lines), osl=7, **options)
    assert isinstance(found, TracedSessions)
    return found.conversations


def test_aiperfs_form(tmp_path):
    """By hand: a system prompt, pauses in ms, lengths, texts as parts."""
    (found,) = read(
        tmp_path,
        {
            "session_id": "a",
            "turns": [
                {"role": "system", "text": "Be brief."},
                {"text": "Hello", "image": None, "delay": 0},
                {"texts": ["Hi", "there"], "delay": 1500, "output_length": 3},
                {"texts": [{"name": "q", "contents": ["one"]}], "delay": 20.5},
            ],
        },
        speedup=2,
    )
    parts = [{"type": "text", "text": text} for text in ("Hi", "there")]
    assert found.head == ({"role": "system", "content": "Be brief."},)
    assert found.turns == (
        Turn(7, (user("Hello"),)),
        Turn(3, ({"role": "user", "content": parts},), delay_s=0.75),
        Turn(7, (user("one"),), delay_s=0.01025),
    )


def test_lines_of_one_session_are_one_conversation(tmp_path):
    first, second = read(
        tmp_path,
        {"session_id": "a", "turns": [{"text": "one"}]},
        {"turns": [{"text": "alone"}]},
        {"session_id": "a", "turns": [{"text": "two"}]},
    )
    assert [turn.messages[0]["content"] for turn in first.turns] == ["one", "two"]
    assert len(second.turns) == 1


def test_times_count_from_the_first_and_conversations_start_in_their_order(tmp_path):
    first, second = read(
        tmp_path,
        {"session_id": "b", "turns": [{"text": "x", "timestamp": 3000}]},
        {
            "session_id": "a",
            "turns": [{"text": "y", "timestamp": 1000}, {"text": "z", "timestamp": 1800}],
        },
    )
    assert [turn.due_s for turn in first.turns] == [0.0, 0.8]
    assert [turn.due_s for turn in second.turns] == [2.0]


def test_what_is_ours(tmp_path):
    call = {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}
    said = {"role": "tool", "tool_call_id": "1", "content": "42"}
    (found,) = read(
        tmp_path,
        {
            "system": "S",
            "tools": [TOOL],
            "turns": [
                {"input_length": 12, "answer": call},
                {"messages": [said], "answer": "It is 42."},
            ],
        },
    )
    assert found == Conversation(
        (
            Turn(7, (), 12, call),
            Turn(7, (said,), answer={"role": "assistant", "content": "It is 42."}),
        ),
        ({"role": "system", "content": "S"},),
        (TOOL,),
    )


GOOD = {"turns": [{"text": "one"}]}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"turns": []}, "turns: List should have at least 1 item"),
        ({"turns": "x"}, "turns"),
        ({"turn": [{"text": "x"}], "turns": [{"text": "x"}]}, "unknown key 'turn'"),
        ({"turns": [{"txt": "x"}]}, "unknown key 'turns.0.txt'; did you mean 'text'"),
        ({"turns": [{"text": 1}]}, "turns.0.text"),
        ({"turns": [{}]}, "give one of text, texts, messages or input_length"),
        ({"turns": [{"text": ""}]}, "give one of"),
        ({"turns": [{"texts": []}]}, "give one of"),
        ({"turns": [{"text": "x", "input_length": 3}]}, "give one of"),
        ({"turns": [{"text": "x", "texts": ["y"]}]}, "give one of"),
        ({"turns": [{"text": "x", "output_length": 0}]}, "turns.0.output_length"),
        ({"turns": [{"input_length": -1}]}, "turns.0.input_length"),
        ({"turns": [{"text": "x", "delay": -1}]}, "turns.0.delay"),
        ({"turns": [{"text": "x", "timestamp": float("nan")}]}, "turns.0.timestamp"),
        ({"turns": [{"text": "x", "timestamp": 1, "delay": 1}]}, "not both"),
        ({"turns": [{"text": "x", "image": "a.png"}]}, "'image' of a turn is not sent"),
        ({"turns": [{"texts": ["x"], "videos": ["a"]}]}, "'videos' of a turn is not sent"),
        ({"turns": [{"text": "x", "extra": {"top_k": 1}}]}, "'extra' .* --extra"),
        ({"turns": [{"text": "x", "role": "assistant"}]}, "turns.0.role"),
        ({"turns": [{"role": "system", "text": "x"}]}, "a system prompt alone is no turn"),
        ({"turns": [{"role": "system", "text": "x", "delay": 1}, {"text": "y"}]}, "a text alone"),
        (
            {"turns": [{"text": "x"}, {"role": "system", "text": "y"}]},
            "turn 2: role 'system' is for the first turn alone",
        ),
        ({"turns": [{"messages": []}]}, "turns.0.messages"),
        ({"turns": [{"messages": [{"content": "x"}]}]}, "each of the messages needs a role"),
        ({"turns": [{"text": "x", "answer": user("y")}]}, "the answer is a text or a message"),
        ({"turns": [{"text": "x", "timestamp": 5}]}, "give it to all or to none"),
        ({"tools": ["x"], "turns": [{"text": "x"}]}, "tools.0"),
        ({"timestamp": 0, "input_length": 1, "output_length": 1}, "unknown key|turns"),
        ({"session_id": "g", "system": "s", "turns": [{"text": "x"}]}, "session 'g' began at"),
    ],
)
def test_bad_lines_are_refused_by_their_place(tmp_path, line, why):
    file = written(tmp_path, GOOD | {"session_id": "g"}, line)
    with pytest.raises(ConfigError, match=f"trace.jsonl:(1|2).*({why})") as error:
        read_trace(file)
    assert error.value.exit_code == 2
    assert "trace.jsonl:2" in str(error.value) or "all or to none" in str(error.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2000) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
KEYS = ("text", "texts", "role", "delay", "timestamp", "output_length", "messages", "answer")
TURNS = st.dictionaries(st.sampled_from([*KEYS, "extra", "image", "x"]), VALUES, max_size=4)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.sampled_from(["system", "tools", "session_id"]), VALUES), TURNS | VALUES)
def test_anything_else_is_refused_and_never_breaks(tmp_path_factory, line, turn):
    file = tmp_path_factory.mktemp("t") / "trace.jsonl"
    file.write_text(json.dumps(line | {"turns": [{"text": "a"}, turn]}))
    try:
        found = read_trace(file)
    except ConfigError as error:
        assert "trace.jsonl:1" in error.message
    else:
        assert isinstance(found, TracedSessions)
        assert all(turn.messages or turn.num_tokens for turn in found.conversations[0].turns)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"isl": 9}, "--isl has no effect on a trace of conversations"),
        ({"num_requests": 1}, "-n has no effect"),
        ({"num_turns": 3}, "a trace has turns of its own"),
        ({"requests_per_s": 1.0}, "exclude each other"),
        ({"num_warmup": 2}, "leaves nothing"),
    ],
)
def test_flags_that_have_no_effect_are_refused(tmp_path, choice, message):
    file = written(tmp_path, GOOD, GOOD)
    with pytest.raises(ConfigError, match=message):
        choose(LoadChoice(trace=file, **choice), (1,))


def test_times_make_an_open_loop_and_none_a_closed_one(tmp_path):
    (load,) = choose(LoadChoice(trace=written(tmp_path, GOOD, GOOD), num_warmup=1), (2,))
    assert (load.arrival, load.num_warmup, load.num_requests) == (Arrival.CLOSED, 1, 1)
    timed = {"turns": [{"text": "x", "timestamp": 5}, {"text": "y"}]}
    (load,) = choose(LoadChoice(trace=written(tmp_path, timed)), (1,))
    assert (load.arrival, load.num_requests) == (Arrival.TRACE, 2)
    with pytest.raises(ConfigError, match="closed loop"):
        choose(LoadChoice(trace=written(tmp_path, timed)), (2,))


def test_a_trace_is_sent_as_it_is(scripted, tmp_path):
    """Texts, tools and scripted answers reach the server; times and pauses are kept."""
    call = {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}
    said = {"role": "tool", "tool_call_id": "1", "content": "42"}
    file = written(
        tmp_path,
        {
            "system": "S",
            "tools": [TOOL],
            "turns": [
                {"text": "first", "timestamp": 100, "answer": call, "output_length": 3},
                {"messages": [said], "delay": 60, "output_length": 2},
                {"input_length": 5, "timestamp": 400, "output_length": 2},
            ],
        },
        {"turns": [{"text": "second", "timestamp": 150, "output_length": 2}]},
    )
    script = json.dumps({"ttft_ms": 5, "itl_ms": 5, "caches": True})
    args = [f"{scripted.url}/v1", "--tokenizer", "tiny-dense", "--trace", str(file)]
    args += ["--extra", f"script={script}", "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(profile, args)
    assert done.exit_code == 0, done.output
    log = scripted.log()["requests"]
    head = {"role": "system", "content": "S"}
    assert log[0]["messages"] == [head, user("first")] and log[0]["tools"] == [TOOL]
    assert log[1]["messages"] == [user("second")] and log[1]["tools"] is None
    assert log[2]["messages"] == [head, user("first"), call, said]
    assert [m["role"] for m in log[3]["messages"]][-2:] == ["assistant", "user"]
    result = read_result(tmp_path / "run")
    by_turn = {r.place.turn: r for r in result.requests if r.place.conversation == 0}
    assert by_turn[1].due_s == pytest.approx(0.0, abs=0.02)
    assert by_turn[2].due_s == pytest.approx(by_turn[1].ended_s + 0.06, abs=0.02)
    assert by_turn[3].due_s == pytest.approx(0.3, abs=0.02)
    assert [r.osl for _, r in sorted(by_turn.items())] == [3, 2, 2]
    assert result.workload.sessions.trace and result.workload.sessions.num_turns == 4
    assert "trace" in done.stdout and "of 4 turns" in done.stdout


AIPERF = """
import ast, json, re, sys
from aiperf.dataset.loader import multi_turn
from aiperf.dataset.loader.models import MultiTurn

given = [json.loads(line) for line in sys.stdin]
shown = re.findall(r"```json\\n(.*?)```", multi_turn.MultiTurnDatasetLoader.__doc__, re.S)
found = []
for raw in [*map(json.loads, shown), *given]:
    try:
        MultiTurn.model_validate(raw)
        is_read = True
    except ValueError:
        is_read = False
    found.append([raw, is_read])
print(json.dumps(found))
"""
SHOWN = 6  # examples in the docstring of its loader


@pytest.mark.slow
def test_the_real_aiperf_reads_what_we_read(real_aiperf, tmp_path):
    """What its documents show is read, unless it has pictures; what we take, its models take."""
    delays = st.none() | st.integers(0, 9) | st.floats(0, 9)
    turns = st.fixed_dictionaries(
        {"text": st.none() | st.text(min_size=1, max_size=2)},
        optional={
            "texts": st.none() | st.lists(st.text(max_size=2), max_size=2),
            "delay": delays,
            "timestamp": delays,
            "output_length": st.none() | st.integers(-1, 5),
            "role": st.sampled_from(["user", "system"]),
        },
    )
    given_lines = []

    @settings(deadline=None, max_examples=300, database=None)
    @given(st.lists(turns, min_size=1, max_size=3))
    def collect(items):
        given_lines.append({"session_id": f"s{len(given_lines)}", "turns": items})

    collect()
    text = "\n".join(map(json.dumps, given_lines))
    python = Path(real_aiperf).with_name("python")
    done = subprocess.run(
        [python, "-c", AIPERF], input=text, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert len(found) == SHOWN + len(given_lines)
    counts = {True: 0, False: 0}
    for place, (raw, is_read) in enumerate(found):
        has_media = any("image" in key for turn in raw["turns"] for key in turn)
        try:
            read(tmp_path, raw)
        except ConfigError as error:
            if place < SHOWN:
                assert has_media and "is not sent" in error.message, raw
        else:
            assert is_read and not has_media, raw
            counts[place < SHOWN] += 1
    assert counts[True] == SHOWN - 3 and counts[False] > 20


def test_our_own_form_is_a_superset(tmp_path: Path):
    """Every key that AIPerf's turn has is read, or refused with a reason of its own."""
    keys = {"text": "x", "delay": 1, "timestamp": 1, "role": "user", "output_length": 2}
    for first, second in itertools.combinations(keys, 2):
        turn = {"text": "x", first: keys[first], second: keys[second]}
        if {"delay", "timestamp"} <= turn.keys():
            continue
        assert read(tmp_path, {"type": "multi_turn", "turns": [turn | {"type": "single_turn"}]})


@pytest.mark.slow
def test_the_real_aiperfs_own_run_is_told_turn_by_turn(scripted, real_aiperf, tmp_path):
    """It sends its form of conversations to a server with a prefix cache; we read its records."""
    extra = {"script": {"caches": True, "ttft_ms": 5, "itl_ms": 2}, "max_tokens": 4}
    turns = [{"text": f"What is {i}? " * 20, "output_length": 4, "extra": extra} for i in range(3)]
    lines = [{"session_id": name, "turns": turns} for name in "ab"]
    target = tmp_path / "tokenizer"
    options = TargetOptions(ServerProtocol.OPENAI_CHAT, tokenizer="tiny-dense")
    api = open_target(scripted.url, Workload(8, 8, 1), options).openai
    write_tokenizer(target, api)
    command = [real_aiperf, "profile", "--model=llm", f"--url={scripted.url}", "--streaming"]
    command += ["--endpoint-type", "chat", "--input-file", str(written(tmp_path, *lines))]
    command += ["--custom-dataset-type", "multi_turn", "--tokenizer", str(target)]
    command += ["--concurrency", "1", "--conversation-num", "2", "--use-server-token-count"]
    command += ["--export-level", "records", "--ui", "none", "--no-gpu-telemetry"]
    command += ["--no-server-metrics", "--output-artifact-dir", str(tmp_path / "out")]
    environment = {name: value for name, value in os.environ.items() if name not in OFFLINE}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    result = read_run(tmp_path / "out")
    told = sorted((entry["read"], entry["cached"]) for entry in scripted.log()["requests"])
    assert sorted((r.isl, r.cached_tokens) for r in result.requests) == told
    assert [turn.num_requests for turn in result.turns] == [2, 2, 2]
    assert result.metric("cached_share") > 0.5
