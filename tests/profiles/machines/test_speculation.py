"""Guesses that a step checks: by hand, at the break-even, and what they hold in memory."""

import json
import math

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.cli import main
from nemotrt.engines.backends import registry
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy
from nemotrt.profiles.planning.answers.plan import make_plan
from nemotrt.profiles.planning.time.engine_profile import known_engines, load_engine
from nemotrt.profiles.planning.time.operators import Call, decode_call, prefill_call
from nemotrt.profiles.planning.time.play.requests import Load
from nemotrt.profiles.planning.time.play.scheduler import play
from nemotrt.profiles.planning.time.roofline import Scenario, roofline
from nemotrt.profiles.planning.time.step import call_seconds, step_time

NANO = DeploymentOptions("nemotron-nano-9b-v2", gpu="h100", isl=1024, osl=512, engine="vllm")
# 27 Mamba-2 layers of 128 heads x 80 x 128 in float32, and windows of 3 x 12,288 in bfloat16.
SSM_BYTES, CONV_BYTES = 27 * 128 * 80 * 128 * 4, 27 * 3 * 12_288 * 2


@given(st.integers(1, 50), st.integers(1, 4000), st.integers(1, 20))
def test_a_step_counts_each_token_and_what_it_sees(batch: int, context: int, checked: int) -> None:
    call = decode_call(batch, context, checked)
    assert (call.num_tokens, call.num_sequences) == (batch * checked, batch)
    assert call.num_logits == batch * checked
    assert call.num_pairs == batch * sum(context + more for more in range(checked))
    assert call.num_cached_tokens == batch * (context + checked - 1)


def test_an_answer_takes_fewer_steps_by_hand() -> None:
    # 10 s of prompt; 6 more tokens come two a step, in 3 steps of 3 tokens at 0.1 s each.
    def step_s(call: Call) -> float:
        return 0.1 * call.num_tokens if call.is_decode else float(call.num_tokens)

    found = play(Load(10, 7, 1, 10, True, num_checked=3, tokens_per_step=2.0), step_s)
    assert found.token_s == pytest.approx(3 * 0.3 / 6)
    assert found.tokens_per_s == pytest.approx(7 / 10.9)


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 60), st.integers(1, 6), st.sampled_from(["vllm", "sglang"]))
def test_at_the_break_even_guesses_change_nothing(users: int, guesses: int, engine: str) -> None:
    options = NANO.at(engine=engine, guesses_per_step=guesses, accepted_per_step=0.0)
    record = make_plan(deploy(options), users)
    told = record.speculation
    assert told is not None and record.decode_step_ms.total > told.plain_step_ms
    assert record.tokens_per_s.best < told.plain_tokens_per_s  # none holds
    if told.break_even_accepted is None:
        all_hold = make_plan(deploy(options.at(accepted_per_step=float(guesses))), users)
        assert all_hold.tokens_per_s.best < told.plain_tokens_per_s
        return
    even = make_plan(deploy(options.at(accepted_per_step=told.break_even_accepted)), users)
    assert even.tokens_per_s.best == pytest.approx(told.plain_tokens_per_s, rel=1e-9)


def test_the_play_agrees_with_mean_rates() -> None:
    deployment = deploy(NANO.at(accepted_per_step=1.5, guesses_per_step=3))
    state = deployment.steady_state(4, 4, Scenario.BEST)
    step_ms = state.step.total / deployment.sharded.tokens_per_step
    assert step_ms <= state.tpot_ms <= 1.6 * step_ms  # prompts of the others stop it


@pytest.mark.parametrize("engine", ["vllm", "tensorrt-llm-serve"])
def test_a_call_takes_what_its_operators_take(engine: str) -> None:
    deployment = deploy(NANO.at(engine=engine, accepted_per_step=1.5, guesses_per_step=3))
    on = roofline(deployment.gpu, deployment.engine, Scenario.BEST)
    seconds = call_seconds(deployment.sharded, on)
    for call in (decode_call(7, 500, 4), prefill_call(2, 100, 700)):
        whole = step_time(deployment.sharded, on, call).total
        assert seconds(call) == pytest.approx(whole / 1e3, rel=1e-9)


@pytest.mark.parametrize("guesses", [1, 3])
def test_a_state_is_held_for_each_guess(guesses: int) -> None:
    plain = deploy(NANO.at(engine="sglang")).request
    found = deploy(NANO.at(engine="sglang", accepted_per_step=1.0, guesses_per_step=guesses))
    more = found.request.total_bytes(0) - plain.total_bytes(0)
    assert more == guesses * (SSM_BYTES + CONV_BYTES)
    assert found.max_batch_size() < deploy(NANO.at(engine="sglang")).max_batch_size()


def test_states_are_written_for_each_token_or_read_again() -> None:
    batch, guesses, held = 5, 3, 1.0
    extra = {"accepted_per_step": held, "guesses_per_step": guesses}
    call, plain_call = decode_call(batch, 100, 1 + guesses), decode_call(batch, 100)

    def ssm_bytes(options: DeploymentOptions, gpu_call: Call) -> float:
        every = deploy(options).sharded.operators(gpu_call)
        return next(op.num_bytes for op in every if op.name == "ssm")

    each, plain = ssm_bytes(NANO.at(**extra), call), ssm_bytes(NANO, plain_call)
    state = SSM_BYTES + CONV_BYTES
    tokens = (plain - 2 * batch * state) / batch  # what a token moves beside states
    assert each == pytest.approx(batch * (state * (1 + 1 + guesses) + tokens * (1 + guesses)))
    trt = NANO.at(engine="tensorrt-llm-serve")
    replayed = ssm_bytes(trt.at(**extra), call)
    # Inputs of the convolution, x, B, decay and step of 27 layers, written, and read if they hold.
    noted = 27 * (12_288 + 10_240 + 1024 + 2 * 128) * 2
    checked = (1 + guesses) * noted + (1 + held) * noted
    assert replayed == pytest.approx(batch * (3 * state + checked + tokens * (1 + guesses)))


def test_engines_of_ours_speculate_as_their_backends_do() -> None:
    ours = {backend.name: backend.takes_drafts for backend in registry.backends()}
    for name in set(known_engines()) & set(ours) - {"tensorrt-llm"}:  # a profile of NVIDIA's own
        assert (load_engine(name).speculation is not None) == ours[name]


def test_the_plan_tells_it() -> None:
    args = ["plan", NANO.model, "--gpu", "h100", "--engine", "vllm", "--concurrency", "8"]
    args += ["--isl", "1024", "--osl", "512", "--accepted-per-step", "1.8"]
    table = CliRunner().invoke(main, args)
    assert table.exit_code == 0, table.output
    assert "1.8 of 2 hold" in table.output and "what makes the guesses" in table.output
    raw = json.loads(CliRunner().invoke(main, [*args, "--json"]).output)["speculation"]
    assert raw["guesses"] == math.ceil(1.8) and 0 < raw["break_even_accepted"] < 1.8


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--engine", "tensorrt"], "engine tensorrt checks no guesses; of --engine these do:"),
        (["--engine", "llama.cpp"], "what guesses cost llama.cpp in Mamba layers is not known"),
        (["--engine", "vllm", "--sessions"], "--sessions plans no speculation yet"),
        (["--launch", "vllm"], "--launch plans no speculation yet"),
        (["--engine", "vllm", "--guesses-per-step", "1"], "no more hold than the 1 of"),
    ],
)
def test_what_is_not_planned_is_refused(args: list[str], message: str) -> None:
    every = ["plan", NANO.model, "--gpu", "h100", "--accepted-per-step", "1.8", *args]
    found = CliRunner().invoke(main, every)
    assert found.exit_code == 2 and message in " ".join(found.output.split())


def test_guesses_alone_say_nothing() -> None:
    found = CliRunner().invoke(main, ["plan", NANO.model, "--guesses-per-step", "2"])
    assert found.exit_code == 2 and "needs --accepted-per-step" in found.output
