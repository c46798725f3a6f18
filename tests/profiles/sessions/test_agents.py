"""Agents as a load: what is sent turn by turn, when, and what a prefix cache held of it."""

import itertools
import json

import pytest
from click.testing import CliRunner

from nemotrt.errors import ConfigError
from nemotrt.profiles.command import profile
from nemotrt.profiles.load.choice.choice import choose
from nemotrt.profiles.load.choice.options import LoadChoice
from nemotrt.profiles.load.exchange import Phase
from nemotrt.profiles.load.sessions import Chats, visits
from nemotrt.profiles.load.targets.opening import open_target
from nemotrt.profiles.load.targets.options import ServerProtocol, TargetOptions
from nemotrt.profiles.load.workload import Arrival, MadeSessions, Workload
from nemotrt.profiles.runs import measure
from nemotrt.profiles.runs.record.result import Warmth, read_result
from nemotrt.profiles.runs.run_folder import read_run

CHAT = ServerProtocol.OPENAI_CHAT


def workload(conversations=4, turns=3, **changes):
    values = {"isl": 20, "osl": 4, "num_requests": conversations * turns, "concurrency": 2}
    values |= {"num_warmup": 0, "seed": 5, "sessions": MadeSessions(turns, 200, 0.0)}
    return Workload(**(values | changes))


def measured(scripted, load, **script):
    script = {"ttft_ms": 1, "itl_ms": 1, "caches": True} | script
    options = TargetOptions(protocol=CHAT, tokenizer="tiny-dense", extra={"script": script})
    return measure.run(open_target(scripted.url, load, options), load)


def test_every_turn_sends_its_whole_history_again(scripted):
    result = measured(scripted, workload())
    assert result.status == "complete", result.reason
    log = scripted.log()["requests"]
    by_task = {}
    for entry in log:
        by_task.setdefault(entry["messages"][1]["content"], []).append(entry["messages"])
        assert entry["messages"][0] == log[0]["messages"][0]  # the shared block
        assert entry["tools"] == log[0]["tools"] != []
    complete = [chats for chats in by_task.values() if len(chats) == 3]
    assert len(complete) >= 4
    for chats in complete:
        for before, after in itertools.pairwise(chats):
            assert after[: len(before)] == before
            call, said = after[len(before) :]
            assert call["role"] == "assistant" and said["role"] == "tool"
            assert said["tool_call_id"] == call["tool_calls"][0]["id"]
            names = [tool["function"]["name"] for tool in log[0]["tools"]]
            assert call["tool_calls"][0]["function"]["name"] in names
    # nothing else is alike: a task has a tag of its own
    assert len({text[:12] for text in by_task}) == len(by_task)


def test_what_the_cache_held_is_in_the_record(scripted):
    """The server's own log is the oracle; what is new alone takes time, 0.1 ms a character."""
    result = measured(scripted, workload(), us_per_char=100)
    requests = [r for r in result.requests if r.phase is Phase.MEASURED]
    told = {(entry["read"], entry["cached"]) for entry in scripted.log()["requests"]}
    assert {(r.isl, r.cached_tokens) for r in requests} <= told
    first = min(requests, key=lambda r: r.sent_s)
    assert first.warmth is Warmth.COLD and first.cached_tokens == 0
    later = [r for r in requests if r.place.turn > 1]
    assert all(r.warmth is Warmth.WARM for r in later)
    # the whole prompt of the turn before was there
    isls = {(r.place.conversation, r.place.turn): r.isl for r in requests}
    for r in later:
        assert r.cached_tokens == isls[r.place.conversation, r.place.turn - 1]
    share = sum(r.cached_tokens for r in requests) / sum(r.isl for r in requests)
    assert result.metric("cached_share") == pytest.approx(share)
    assert result.metric("cached_tokens", "max") == max(r.cached_tokens for r in requests)
    cold, warm = result.metric("cold_ttft_ms", "max"), result.metric("warm_ttft_ms", "p50")
    assert cold > 0.1 * first.isl > warm


def test_turns_are_told_apart(scripted):
    result = measured(scripted, workload(), us_per_char=20)
    assert [turn.turn for turn in result.turns] == [1, 2, 3]
    assert [turn.num_requests for turn in result.turns] == [4, 4, 4]
    for before, turn in itertools.pairwise(result.turns):
        assert turn.cold_ttft_ms is None and turn.warm_ttft_ms == turn.ttft_ms
        assert turn.isl > before.isl
        requests = [r for r in result.requests if r.place and r.place.turn == turn.turn]
        assert min(r.isl for r in requests) <= turn.isl <= max(r.isl for r in requests)
        # new is what came since: this server counts characters
        assert 0 < turn.new_tokens < turn.isl
        assert turn.cached_tokens == pytest.approx(turn.isl - turn.new_tokens, rel=0.1)
    assert result.turns[0].cold_ttft_ms.count + result.turns[0].warm_ttft_ms.count == 4


def test_a_session_ends_with_its_last_turn(scripted):
    result = measured(scripted, workload())
    start_s, end_s = result.window_s
    measured_ends = [
        r.arrivals_s[-1] for r in result.requests if r.place.turn == 3 and r.is_complete
    ]
    inside = sum(start_s < at_s <= end_s for at_s in measured_ends)
    assert inside >= 4
    assert result.metric("sessions_per_s") == pytest.approx(inside / (end_s - start_s))


def test_an_agent_thinks_before_each_later_turn(scripted):
    load = workload(2, 3, concurrency=1, sessions=MadeSessions(3, 50, 0.08))
    result = measured(scripted, load)
    requests = [r for r in result.requests if r.phase is Phase.MEASURED]
    for before, after in itertools.pairwise(requests):
        pause_s = after.due_s - before.ended_s
        if after.place.turn == 1:  # the next conversation begins at once
            assert pause_s < 0.08
        else:
            assert pause_s >= 0.08 - 1e-5
            assert after.sent_s >= after.due_s


def test_without_a_cache_nothing_is_told_and_nothing_is_zero(scripted, tmp_path):
    """Absent is not zero: no cached tokens, no warm and no cold requests, and a word about it."""
    args = [f"{scripted.url}/v1", "--tokenizer", "tiny-dense", "--turns", "2", "--isl", "8"]
    args += ["--osl", "2", "-n", "2", "-o", str(tmp_path / "run"), "--json"]
    done = CliRunner().invoke(profile, args)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [turn["cached_tokens"] for turn in told["turns"]] == [None, None]
    for name in ("cached_tokens", "cached_share", "warm_ttft_ms", "cold_ttft_ms"):
        assert "does not tell" in told["metrics"][name]["not_computable"], name
    result = read_result(tmp_path / "run")
    assert {r.warmth for r in result.requests} == {Warmth.NOT_TOLD}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Turn by turn" in page and "not told" in page
    assert "Time to first token by turn" in page and "Prompt tokens by turn" not in page


def test_the_page_shows_warm_and_cold_apart(scripted, tmp_path):
    script = json.dumps({"ttft_ms": 1, "itl_ms": 1, "caches": True, "us_per_char": 10})
    args = [f"{scripted.url}/v1", "--tokenizer", "tiny-dense", "--preset", "agents", "-c", "2"]
    args += ["--turns", "3", "--isl", "20", "--osl", "4", "--system-tokens", "300", "-n", "3"]
    args += ["--think-s", "0.01", "--extra", f"script={script}", "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(profile, args)
    assert done.exit_code == 0, done.output
    assert "3 turns of 20 in, 4 out after 300 shared, 0.01 s apart" in done.stdout
    assert "warm_ttft_ms" in done.stdout and "cold_ttft_ms" in done.stdout
    page = (tmp_path / "run" / "report.html").read_text()
    for part in ("Time to first token by turn", "Prompt tokens by turn", "from the cache", "warm"):
        assert part in page
    assert CliRunner().invoke(profile, ["report", str(tmp_path / "run")]).exit_code == 0


def test_a_killed_run_keeps_turns_and_cached_tokens(scripted, tmp_path):
    """The journal is what a kill leaves; here the run ended, and its journal is kept."""
    load = workload()
    options = TargetOptions(
        protocol=CHAT, tokenizer="tiny-dense", extra={"script": {"caches": True, "itl_ms": 1}}
    )
    watchers = measure.Observers(journal=tmp_path / "run.partial")
    result = measure.run(open_target(scripted.url, load, options), load, watchers)
    recovered = read_run(tmp_path / "run.partial")
    found = {r.index: (r.place, r.isl, r.cached_tokens) for r in recovered.requests if r.ended_s}
    assert (
        found.items()
        >= {
            r.index: (r.place, r.isl, r.cached_tokens) for r in result.requests if r.is_complete
        }.items()
    )
    assert [turn.num_requests for turn in recovered.turns] == [4, 4, 4]
    assert recovered.workload == result.workload


@pytest.mark.parametrize("protocol", ["completions", "triton", "grpc", "aiperf"])
def test_what_takes_no_conversations_says_so(scripted, scripted_grpc, tmp_path, protocol):
    target = {"grpc": scripted_grpc.url, "triton": scripted.url}.get(protocol, f"{scripted.url}/v1")
    more = {
        "completions": ["--protocol", "openai"],
        "aiperf": ["--driver", "aiperf", "--aiperf", "true"],
    }.get(protocol, [])
    args = [target, "--tokenizer", "tiny-dense", "--preset", "agents", *more]
    done = CliRunner().invoke(profile, [*args, "-o", str(tmp_path / "run")])
    assert done.exit_code == 2, done.output
    assert "conversations" in done.output
    assert not (tmp_path / "run").exists()


def test_the_engine_itself_takes_them_by_its_template(engine_folder, tmp_path):
    """In this process a prompt is what the chat template makes of the same messages."""
    args = [str(engine_folder), "--turns", "3", "--isl", "10", "--osl", "2", "-n", "2", "-c", "2"]
    done = CliRunner().invoke(profile, [*args, "--json", "-o", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    turns = json.loads(done.stdout)["turns"]
    assert [turn["num_requests"] for turn in turns] == [2, 2, 2]
    assert turns[0]["isl"] < turns[1]["isl"] < turns[2]["isl"]
    assert [turn["cached_tokens"] for turn in turns] == [None] * 3  # it keeps nothing


def test_the_engine_itself_tells_what_it_kept(engine_folder, tmp_path):
    """With memory for kept states a later turn's history is not computed again."""
    args = [str(engine_folder), "--turns", "3", "--isl", "20", "--osl", "2", "-n", "2", "--json"]
    args += ["--system-tokens", "300", "--prefix-cache-gib", "0.1", "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(profile, args)
    assert done.exit_code == 0, done.output
    first, *later = json.loads(done.stdout)["turns"]
    assert first["cold_ttft_ms"]["count"] == 1  # the second conversation has the shared block
    for before, turn in itertools.pairwise([first, *later]):
        # all but what follows the last role marker of the turn before
        assert before["isl"] - 32 <= turn["cached_tokens"] < turn["isl"]
        assert turn["cold_ttft_ms"] is None


def test_the_preset_grows_to_16k(tokenizer):
    (load,) = choose(LoadChoice(preset="agents"), (4,))
    assert load.sessions.num_turns == 12
    assert (load.concurrency, load.num_requests, load.num_warmup) == (4, 8 * 12, 0)
    options = TargetOptions(protocol=CHAT, tokenizer="tiny-dense")
    target = open_target("http://127.0.0.1:1", load, options)
    counts = [prompt.num_tokens for prompt in Chats(target, load).prompts(0)]
    assert counts[0] == pytest.approx(2048 + 1024, rel=0.02)
    assert counts[-1] == pytest.approx(16384, rel=0.05)
    again = Chats(open_target("http://127.0.0.1:1", load, options), load)
    assert again.prompts(0) == Chats(target, load).prompts(0)


def test_warm_up_and_measurement_are_whole_conversations():
    (load,) = choose(LoadChoice(num_turns=3, num_warmup=2, num_requests=4), (2,))
    found = list(itertools.islice(visits(load), 8))
    phases = [{exchange.phase for _, exchange in visit} for visit in found]
    assert phases == [{Phase.WARM_UP}] * 2 + [{Phase.MEASURED}] * 4 + [{Phase.COOL_DOWN}] * 2
    assert [e.index for visit in found for _, e in visit] == list(range(24))
    assert [e.place.turn for _, e in found[3]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"think_s": 1.0}, "--think-s is for conversations: give --turns"),
        ({"system_tokens": 0}, "--system-tokens is for conversations: give --turns"),
        ({"preset": "smoke", "system_tokens": 9}, "give --turns"),
        ({"num_turns": 2, "requests_per_s": 1.0}, "--request-rate is for single requests"),
    ],
)
def test_flags_that_have_no_effect_are_refused(choice, message):
    with pytest.raises(ConfigError, match=message):
        choose(LoadChoice(**choice), (1,))


@pytest.mark.parametrize(
    "change",
    [{"num_requests": 4}, {"num_warmup": 1}, {"arrival": Arrival.POISSON, "requests_per_s": 1.0}],
)
def test_half_a_conversation_is_no_load(change):
    with pytest.raises(ConfigError, match="conversation"):
        workload(**change)
