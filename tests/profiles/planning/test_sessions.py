"""Agents' sessions: bytes by hand, and the closed form against sessions that are played out."""

import heapq
import itertools
import json
import random
import subprocess
import sys
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.errors import ConfigError, NoFeasiblePlanError
from nemotrt.profiles.hardware.gpu_profile import known_gpus, load_gpu
from nemotrt.profiles.load import choice
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy
from nemotrt.profiles.planning.answers.search import LatencyTarget
from nemotrt.profiles.planning.command import plan
from nemotrt.profiles.planning.memory.capacity import GIB
from nemotrt.profiles.planning.sessions.answer import SessionsPlan, plan_sessions
from nemotrt.profiles.planning.sessions.kept import cached_tokens, kept_memory
from nemotrt.profiles.planning.sessions.load import SessionLoad, agents_load
from nemotrt.profiles.planning.sessions.rate import Flow, Service, flow
from nemotrt.profiles.planning.sessions.turns import copies_s
from nemotrt.profiles.planning.time.engine_profile import Boundary, known_engines, load_engine
from nemotrt.profiles.planning.time.roofline import Scenario, roofline
from nemotrt.profiles.planning.time.step import ShardedModel, prefill_s

NANO = "nemotron-nano-9b-v2"
LOAD = SessionLoad(8, 12, system_tokens=2048, isl=1024, osl=160, think_s=2.0)
# 27 Mamba-2 layers of 128 heads x 80 x 128 in float32, and windows of 3 x 12,288 in bfloat16.
STATE = 27 * (128 * 80 * 128 * 4 + 3 * 12288 * 2)
# 4 attention layers, K and V, 8 heads of 128 in bfloat16.
KV = 4 * 2 * 8 * 128 * 2


def deployment(load: SessionLoad = LOAD, **options: Any) -> Deployment:
    lengths = {"isl": load.prompt_tokens(load.num_turns), "osl": load.osl}
    return deploy(DeploymentOptions(NANO).at(**lengths, **options))


def planned(load: SessionLoad = LOAD, **options: Any) -> SessionsPlan:
    found = deployment(load, **options)
    return plan_sessions(found, load, found.max_batch_size())


def test_the_kept_states_of_the_9b_by_hand() -> None:
    """A session: 2 states, and the K and V of what it does not share, once."""
    assert STATE == 143_548_416
    memory = kept_memory(deployment(), LOAD)
    assert (memory.state_bytes, memory.kv_bytes_per_token) == (STATE, KV)
    own_tokens = 12 * 1024 + 12 * 160
    assert LOAD.longest_tokens == 2048 + own_tokens
    assert memory.session_bytes == 2 * STATE + own_tokens * KV
    assert memory.shared_bytes == STATE + 2048 * KV
    assert memory.of(8) == memory.shared_bytes + 8 * memory.session_bytes
    assert memory.sessions_in(memory.of(8)) == 8
    assert memory.sessions_in(memory.of(8) - 1) == 7
    assert memory.sessions_in(0) == 0


def test_two_gpus_keep_what_one_does() -> None:
    alone = kept_memory(deployment(gpu="h100"), LOAD)
    assert kept_memory(deployment(gpu="h100", tp=2), LOAD) == alone


def test_narrower_states_and_caches_are_kept_as_they_are() -> None:
    narrow = kept_memory(
        deployment(engine="nemotrt", ssm_dtype=NumberFormat.BF16, kv_dtype=NumberFormat.INT8), LOAD
    )
    assert narrow.state_bytes == 27 * (128 * 80 * 128 * 2 + 3 * 12288 * 2)
    assert narrow.kv_bytes_per_token == KV // 2


def test_the_load_is_the_preset_s() -> None:
    raw = yaml.safe_load(resources.files(choice).joinpath("presets.yaml").read_text())["agents"]
    found = agents_load()
    assert (found.num_turns, found.system_tokens) == (raw["turns"], raw["system_tokens"])
    assert (found.isl, found.osl, found.think_s) == (raw["isl"], raw["osl"], raw["think_s"])
    told = json.loads(run("--sessions", "--json").stdout)["sessions"]["load"]
    assert told == asdict(replace(found, concurrency=told["concurrency"]))
    assert told["concurrency"] == 9  # as many as run at once


def test_prompts_grow_by_an_answer_and_a_turn() -> None:
    text = 2048
    for turn in range(1, 13):
        assert LOAD.common_tokens(turn) == (text if turn == 1 else LOAD.prompt_tokens(turn - 1))
        text += 1024
        assert LOAD.prompt_tokens(turn) == text
        text += 160
    assert LOAD.longest_tokens == text


@pytest.mark.parametrize(
    ("engine", "first", "second"),
    [
        ("tensorrt", 2048, 3072),
        ("nemotrt", 2048, 3072),
        ("vllm", 1312, 2 * 1312),  # pages that hold a float32 state of one layer
        ("tensorrt-llm", 2048, 3072),
        ("sglang", None, None),
    ],
)
def test_what_an_engine_keeps_of_a_prompt(
    engine: str, first: int | None, second: int | None
) -> None:
    found = deployment(engine=engine)
    assert [cached_tokens(found, LOAD, turn) for turn in (1, 2)] == [first, second]


def test_every_engine_says_what_it_keeps_and_where_that_was_read() -> None:
    for name in known_engines():
        reuse = load_engine(name).reuse
        assert reuse.source
        if reuse.boundary is Boundary.UNKNOWN:
            assert name in ("llama.cpp", "sglang", "tensorrt-llm-0.9")


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["tensorrt", "vllm", "tensorrt-llm"]),
    st.integers(1, 9000),
    st.integers(1, 5000),
    st.integers(1, 500),
)
def test_a_prefix_is_a_proper_one(engine: str, shared: int, more: int, answer: int) -> None:
    load = SessionLoad(1, 3, shared, more, answer, 0.0)
    found = deployment(load, gpu="h100", engine=engine)
    for turn in (1, 2, 3):
        cached = cached_tokens(found, load, turn)
        assert cached is not None
        assert 0 <= cached <= load.common_tokens(turn) < load.prompt_tokens(turn)


def test_a_copy_takes_its_bytes_over_the_host_link() -> None:
    """A10G: PCIe 4.0 x16, 32 GB/s each way, of which copies reach 80 %."""
    found = deployment()
    on = roofline(found.gpu, found.engine, Scenario.BEST)
    by_hand = (2 * STATE + (3072 + 1184) * KV) / (0.8 * 32e9)
    assert copies_s(found, on, 3072, 1184) == pytest.approx(by_hand)
    assert copies_s(found, on, 0, 1184) == pytest.approx((STATE + 1184 * KV) / (0.8 * 32e9))


def test_every_gpu_has_a_host_link_with_a_source() -> None:
    for name in known_gpus():
        gpu = load_gpu(name)
        wide = {"gh200": 450, "gb10": 273, "jetson-thor": 273}  # NVLink-C2C, or one memory
        legal = (wide[name],) if name in wide else (16, 32, 64)
        assert gpu.datasheet.host_link_gb_per_s in legal and gpu.sources["host_link"], name


def test_a_gpu_without_a_host_link_is_refused_by_name() -> None:
    found = deployment()
    datasheet = found.gpu.datasheet.model_copy(update={"host_link_gb_per_s": None})
    object.__setattr__(found, "gpu", found.gpu.model_copy(update={"datasheet": datasheet}))
    with pytest.raises(ConfigError, match="a10g: host_link_gb_per_s is missing"):
        plan_sessions(found, LOAD, 1)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 20_000), st.integers(1, 3000), st.integers(64, 4096))
def test_tokens_after_others_cost_no_less_than_alone(start: int, isl: int, chunk: int) -> None:
    found = deployment(gpu="h100")
    sharded = ShardedModel(found.model, found.formats)
    on = roofline(found.gpu, found.engine, Scenario.BEST)
    after = prefill_s(sharded, on, isl, chunk, start=start)
    assert after >= prefill_s(sharded, on, isl, chunk)
    # Chunk by chunk, it is the rest of one long prompt.
    whole = prefill_s(sharded, on, 3 * chunk, chunk)
    parts = prefill_s(sharded, on, 2 * chunk, chunk)
    last = prefill_s(sharded, on, chunk, chunk, start=2 * chunk)
    assert whole == pytest.approx(parts + last, rel=1e-3)


def test_later_turns_take_about_as_long_as_the_first_where_prefixes_are_kept() -> None:
    for gpu, engine in (("a10g", None), ("h100", None), ("h100", "tensorrt-llm")):
        found = planned(gpu=gpu, engine=engine)
        kept = [time.kept_ttft_ms or 0.0 for time in found.by_turn]
        cold = [time.cold_ttft_ms for time in found.by_turn]
        assert max(kept[1:]) < 1.2 * min(kept[1:]) and kept[-1] < cold[-1] / 5
        assert cold == sorted(cold)
        assert found.kept and found.kept.ttft_ms < found.cold.ttft_ms / 3
        assert found.kept.sessions_per_s.low <= found.kept.sessions_per_s.best
        assert found.kept.sessions_per_s.best <= found.kept.sessions_per_s.high
        assert found.kept.sessions_per_s.best > found.cold.sessions_per_s.best


def test_host_memory_says_how_many_stay_warm() -> None:
    found = deployment()
    enough = plan_sessions(found, LOAD, 9, kept_memory(found, LOAD).of(8) / GIB)
    assert enough.kept and (enough.warm_sessions, enough.kept.warm_share) == (8, 1.0)
    half = plan_sessions(found, LOAD, 9, kept_memory(found, LOAD).of(4) / GIB)
    assert half.kept and (half.warm_sessions, half.kept.warm_share) == (4, 0.5)
    assert any("4 of 8 sessions stay warm" in note for note in half.notes)
    assert enough.kept.ttft_ms < half.kept.ttft_ms < half.cold.ttft_ms
    none = plan_sessions(found, LOAD, 9, 0.01)
    assert none.kept == none.cold


def test_what_nobody_read_is_said_and_never_all() -> None:
    found = planned(gpu="h100", engine="sglang")
    assert found.kept is None and found.warm_sessions is None
    assert found.boundary is Boundary.UNKNOWN and "is not known" in found.notes[0]
    assert all(time.cached_tokens is None for time in found.by_turn)


def test_a_target_is_met_by_as_many_agents_and_by_no_more() -> None:
    found, target = deployment(), LatencyTarget(ttft_ms=1000)
    most = plan_sessions(found, LOAD, 9, None, target).kept
    assert most and most.agents_in_target
    for more, is_met in ((0, True), (1, False)):
        load = replace(LOAD, concurrency=most.agents_in_target + more)
        rate = plan_sessions(found, load, 9).kept
        assert rate and (rate.ttft_ms <= 1000) is is_met
    with pytest.raises(NoFeasiblePlanError, match="one agent alone gets"):
        plan_sessions(found, LOAD, 9, None, LatencyTarget(ttft_ms=1))


def played(service: Service, agents: int, think_s: float, num_turns: int) -> tuple[float, float]:
    """Play agents out: turns in a second, and mean seconds to the first token.

    An engine that does one thing at a time: the first prompt that waits, if a slot is free, else
    one step of all that run.
    """
    chance = random.Random(1)
    order = itertools.count()
    thinking = [(chance.random() * think_s, next(order)) for _ in range(agents)]
    heapq.heapify(thinking)
    waiting: list[float] = []
    running: list[int] = []
    now, ended, firsts, begun = 0.0, 0, [], 0.0
    while ended < num_turns:
        while thinking and thinking[0][0] <= now:
            waiting.append(heapq.heappop(thinking)[0])
        if ended >= num_turns // 10 and not begun:
            begun, firsts, skipped = now, [], ended
        if waiting and len(running) < service.slots:
            now += service.prefill_s
            firsts.append(now - waiting.pop(0))
            running.append(service.num_steps)
        elif running:
            now += service.step_s(float(len(running)))
            running = [left - 1 for left in running]
        else:
            now = thinking[0][0]
            continue
        for _ in range(running.count(0)):
            ended += 1
            heapq.heappush(thinking, (now + chance.expovariate(1 / think_s), next(order)))
        running = [left for left in running if left]
    return (ended - skipped) / (now - begun), sum(firsts) / len(firsts)


@pytest.mark.parametrize(
    ("agents", "prefill_s", "think_s", "slots"),
    [(1, 0.4, 2.0, 4), (8, 0.4, 2.0, 9), (8, 2.5, 2.0, 9), (4, 0.05, 5.0, 8), (24, 0.1, 4.0, 8),
     (32, 0.05, 30.0, 64)],
)  # fmt: skip
def test_the_closed_form_is_what_sessions_give_that_are_played_out(
    agents: int, prefill_s: float, think_s: float, slots: int
) -> None:
    service = Service(prefill_s, lambda running: 0.035 + 0.001 * running, 100, slots)
    found = flow(service, agents, think_s)
    rate, ttft_s = played(service, agents, think_s, 4000)
    assert found.turns_per_s == pytest.approx(rate, rel=0.04)
    # Prompts come in bunches where they take most of the time: they wait longer than at random.
    assert 0.55 * ttft_s - 0.04 <= found.ttft_s <= 1.1 * ttft_s


SERVICES = st.builds(
    lambda prefill_s, step_s, more_s, steps, slots: Service(
        prefill_s, lambda running: step_s + more_s * running, steps, slots
    ),
    st.floats(0.001, 20),
    st.floats(0.001, 1),
    st.floats(0, 0.1),
    st.integers(0, 2000),
    st.integers(1, 300),
)


@settings(deadline=None)
@given(SERVICES, st.integers(1, 2000), st.floats(0, 1000))
def test_agents_never_get_more_than_there_is(service: Service, agents: int, think_s: float) -> None:
    found: Flow = flow(service, agents, think_s)
    assert 0 < found.running <= min(agents, service.slots) * (1 + 1e-6)
    assert found.turns_per_s * service.prefill_s <= 1 + 1e-6  # the engine does one thing at a time
    alone_s = service.turn_s(1)
    assert found.turns_per_s <= agents / (alone_s + think_s) * (1 + 1e-6)
    assert found.ttft_s >= service.prefill_s * (1 - 1e-6) and found.queue_s >= 0
    # Little's law over the whole cycle.
    answered_s = found.ttft_s + service.num_steps * found.tpot_s
    if service.num_steps:
        assert found.turns_per_s * (answered_s + think_s) == pytest.approx(agents, rel=1e-4)


def run(*words: str) -> Any:
    return CliRunner().invoke(plan, [NANO, *words])


def test_the_command_in_json_and_as_a_table(tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    words = ("--sessions", "--concurrency", "4", "--turns", "3", "--system-tokens", "512",
             "--isl", "100", "--osl", "20", "--think-s", "0",
             "--prefix-cache-gib", "2", "--ttft-ms", "2000")  # fmt: skip
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    raw = json.loads(result.stdout)
    assert (raw["isl"], raw["osl"]) == (512 + 3 * 100 + 2 * 20, 20)
    sessions = raw["sessions"]
    assert sessions["load"] == {"concurrency": 4, "num_turns": 3, "system_tokens": 512, "isl": 100,
                                "osl": 20, "think_s": 0.0}  # fmt: skip
    assert sessions["prefix_cache_bytes"] == 2 * GIB and sessions["kept"]["agents_in_target"] >= 4
    assert [time["prompt_tokens"] for time in sessions["by_turn"]] == [612, 732, 852]
    assert "sessions" not in json.loads(run("--json").stdout)
    shown = run(*words, "--plot", str(page))
    assert shown.exit_code == 0, shown.output
    for text in ("(predicted)", "136.9 MiB", "sessions that stay warm", "agents within the target"):
        assert text in shown.stdout
    assert "Time to first token by turn" in page.read_text()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--turns", "4", "--think-s", "1"], 2, "--turns, --think-s: only with --sessions"),
        (["--prefix-cache-gib", "4"], 2, "--prefix-cache-gib: only with --sessions"),
        (["--sessions", "--precision", "any"], 2, "plans one precision"),
        (
            ["--sessions", "--engine", "vllm", "--prefix-cache-gib", "4"],
            2,
            "vllm keeps no states in",
        ),
        (["--sessions", "--turns", "0"], 2, "x>=1"),
        (["--sessions", "--ttft-ms", "1"], 4, "The latency target cannot be met"),
        (["--sessions", "--system-tokens", "900000"], 4, "GiB are missing"),
    ],
)
def test_faults(words: list[str], code: int, text: str) -> None:
    result = run(*words)
    assert result.exit_code == code, result.output
    assert text in " ".join(result.stderr.split())


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from nemotrt.cli import main\n"
        f"main(['plan', '{NANO}', '--sessions'], standalone_mode=False)\n"
        "assert not {'numpy', 'torch', 'onnxruntime', 'onnx'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "agents, " in done.stdout
