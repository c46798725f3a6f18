"""The scheduler played out: by hand, against the closed form, and call by call."""

import math
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.profiles.hardware.gpu_profile import load_gpu
from nemotrt.profiles.planning.sources.known_models import load_model
from nemotrt.profiles.planning.time.engine_profile import load_engine
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.profiles.planning.time.operators import Call, decode_call, prefill_call
from nemotrt.profiles.planning.time.play.closed_loop import Users, cycle, steady_state
from nemotrt.profiles.planning.time.play.requests import Load, Played, asks, lengths
from nemotrt.profiles.planning.time.play.scheduler import NUM_ROUNDS, play, together
from nemotrt.profiles.planning.time.roofline import Roofline, Scenario, roofline
from nemotrt.profiles.planning.time.step import ShardedModel, call_seconds, step_time

BF16 = Formats(Precision.BF16, NumberFormat.BF16, NumberFormat.FP32)
MODELS = st.sampled_from(["nemotron-nano-9b-v2", "qwen3-8b", "llama-7b"])
ENGINES = st.sampled_from(["vllm", "sglang", "tensorrt-llm", "tensorrt", "tensorrt-llm-0.9"])


def on_h100(engine: str) -> Roofline:
    return roofline(load_gpu("h100"), load_engine(engine), Scenario.BEST)


def by_tokens(call: Call) -> float:
    """A second a prompt token, a tenth for each decode step beside or without one."""
    return 0.1 if call.is_decode else float(call.num_tokens)


def test_a_wave_in_one_call_by_hand() -> None:
    # 4 prompts of 10 tokens fit one call: all wait for its 40 s, in every round, for they end
    # together too. 3 more tokens take 0.3 s.
    found = play(Load(10, 4, 4, 64, True), by_tokens)
    assert found.first_token_s == (40.0,) * 4 * NUM_ROUNDS
    assert found.burst_s == 40.0 and found.token_s == pytest.approx(0.1)
    assert found.tokens_per_s == pytest.approx(4 * 4 / 40.3)


def test_prompts_wait_for_those_before_them_by_hand() -> None:
    # A call holds one prompt of 10, others decode beside: 10, 20, 30 s in the first round.
    found = play(Load(10, 1, 3, 10, True), by_tokens)
    assert found.burst_s == 30.0
    assert found.first_token_s[:2] == (10.0, 20.0) and found.percentile_s(95) == 30.0


def test_prompts_first_keeps_users_in_step() -> None:
    mixed = play(Load(10, 50, 8, 20, True), by_tokens)
    first = play(Load(10, 50, 8, 20, False), by_tokens)
    assert first.mean_s == pytest.approx(50.0)  # 2 prompts a call: 20, 40, 60, 80 s each round
    assert mixed.mean_s < first.mean_s and mixed.burst_s >= first.burst_s


def test_a_call_of_whole_prompts_leaves_room_by_hand() -> None:
    # A call holds 15 tokens: one prompt of 10 and half of the next, or the one alone. The other
    # half then comes with the first user's next prompt, in a call of 15 again.
    split = play(Load(10, 1, 2, 15, True), by_tokens)
    whole = play(Load(10, 1, 2, 15, True, splits_prompts=False), by_tokens)
    assert split.first_token_s[0] == 15.0 and split.burst_s == 30.0
    assert whole.first_token_s[0] == 10.0 and whole.burst_s == 20.0
    # one that no call has room for is split all the same
    assert play(Load(40, 1, 1, 15, True, splits_prompts=False), by_tokens).burst_s == 40.0


def test_kept_tokens_are_not_computed_by_hand() -> None:
    found = play(Load(10, 1, 3, 10, True, kept_tokens=8), by_tokens)
    assert found.burst_s == 6.0 and found.percentile_s(50) == 6.0  # 3 times 2 tokens, in one call
    # the last token of a prompt is computed in any case
    assert play(Load(10, 1, 1, 10, True, kept_tokens=99), by_tokens).burst_s == 1.0


def test_who_comes_first_finds_nothing_kept() -> None:
    load = Load(10, 1, 2, 10, True, kept_tokens=8, kept_share=0.9)
    assert [kept for *_, kept in islice(asks(load, 20), 4)] == [0, 0, 8, 8]
    assert play(load, by_tokens).burst_s == 20.0


@given(st.integers(1, 5000), st.floats(0, 0.5))
def test_lengths_are_drawn_around_their_means(isl: int, spread: float) -> None:
    drawn = list(islice(lengths(Load(isl, 100, 1, 1, True, spreads=(spread, 0.1))), 400))
    assert all(one >= 1 and other >= 1 for one, other in drawn)
    mean = sum(one for one, _ in drawn) / 400
    assert abs(mean / isl - 1) < 4 * spread / 20 + 1 / isl


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 16), st.integers(32, 3000), st.integers(2, 300), st.floats(0, 1))
def test_kept_prompts_never_slow_users(users: int, isl: int, osl: int, share: float) -> None:
    on, model = on_h100("vllm"), ShardedModel(load_model("qwen3-8b"), BF16)
    asked = Users(isl, osl, users, users, 2048)
    kept = replace(asked, kept_tokens=isl // 2, kept_share=share)
    before, after = (steady_state(model, on, one) for one in (asked, kept))
    assert after.tokens_per_s >= before.tokens_per_s * (1 - 1e-9)
    assert after.ttft_burst_ms <= before.ttft_burst_ms * (1 + 1e-9)


def test_a_user_is_back_after_the_way_by_hand() -> None:
    # 10 s of prompt, 0.3 s of three more tokens, 5 s outside of the engine, which idles.
    found = play(Load(10, 4, 1, 10, True), by_tokens, 5.0)
    assert found.mean_s == 10.0 and found.token_s == pytest.approx(0.1)
    assert found.tokens_per_s == pytest.approx(4 / 15.3)


def test_who_ends_during_the_way_waits_too_by_hand() -> None:
    # Calls hold one prompt of 10 and a token: users end a step (0.1 s) apart. Back at once, the
    # first has its prompt computed before the second comes; 0.5 s on their way, they meet.
    alone, met = (play(Load(10, 500, 2, 11, True), by_tokens, turn_s) for turn_s in (0.0, 0.5))
    assert alone.percentile_s(50) == pytest.approx(11.0, rel=0.02)  # beside the other's token
    assert met.mean_s > alone.mean_s + 3


@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.1, 1))
def test_lengths_are_drawn_within_their_share(isl: int, osl: int, share: float) -> None:
    drawn = list(islice(lengths(Load(isl, osl, 1, 64, True, share)), 40))
    for longest, found in zip((isl, osl), zip(*drawn, strict=True), strict=True):
        assert max(int(share * longest), 1) <= min(found) and max(found) <= longest
    assert drawn == list(islice(lengths(Load(isl, osl, 1, 64, True, share)), 40))


@settings(deadline=None, max_examples=25)
@given(MODELS, ENGINES, st.integers(1, 60), st.integers(1, 6000), st.integers(16, 3000))
@example("nemotron-nano-9b-v2", "tensorrt", 6, 321, 16)  # a token more than a call has
@example("nemotron-nano-9b-v2", "vllm", 17, 2057, 16)  # what is left of many prompts shares a call
def test_the_closed_form_agrees(model: str, engine: str, users: int, isl: int, osl: int) -> None:
    """But for the decode steps that ride in the calls of prompts: these it counts twice."""
    sharded, on = ShardedModel(load_model(model), BF16), on_h100(engine)
    asked = Users(isl, osl, users, users, on.engine.max_num_tokens)
    played = _play(sharded, on, asked)
    formula = cycle(sharded, on, asked)
    seconds = formula.seconds - on.request_s()
    num_calls = math.ceil(users * isl / asked.max_num_tokens)
    ridden_s = min(num_calls, osl - 1) * formula.step.total / 1e3 if on.engine.mixes_prompts else 0
    assert users * osl / seconds <= 1.1 * played.tokens_per_s
    assert played.tokens_per_s <= 1.1 * users * osl / (seconds - ridden_s)
    assert played.burst_s <= 1.1 * seconds


@settings(deadline=None, max_examples=25)
@given(MODELS, ENGINES, st.integers(1, 400), st.integers(1, 200))
def test_one_token_prompts_wait_no_longer_than_a_burst(
    model: str, engine: str, users: int, osl: int
) -> None:
    sharded, on = ShardedModel(load_model(model), BF16), on_h100(engine)
    found = steady_state(sharded, on, Users(1, osl, users, users, on.engine.max_num_tokens))
    assert found.ttft_ms <= found.ttft_burst_ms * (1 + 1e-9)
    assert found.ttft_p50_ms <= found.ttft_p95_ms <= found.ttft_burst_ms * (1 + 1e-9)


@settings(deadline=None, max_examples=25)
@given(
    st.one_of(MODELS, st.just("nemotron-3-nano-30b-a3b")),
    ENGINES,
    st.integers(1, 300),
    st.integers(1, 5000),
    st.integers(1, 4000),
)
def test_a_call_takes_what_its_operators_take(
    model: str, engine: str, batch: int, context: int, new: int
) -> None:
    sharded, on = ShardedModel(load_model(model), BF16, 1), on_h100(engine)
    seconds = call_seconds(sharded, on)
    decode, prompt = decode_call(batch, context), prefill_call(2, context, new)
    for call in (decode, prompt, together(prompt, decode)):
        assert seconds(call) == pytest.approx(step_time(sharded, on, call).total / 1e3, rel=1e-9)


def _play(sharded: ShardedModel, on: Roofline, asked: Users) -> Played:
    load = Load(
        asked.isl, asked.osl, asked.batch_size, asked.max_num_tokens, on.engine.mixes_prompts
    )
    return play(load, call_seconds(sharded, on))
