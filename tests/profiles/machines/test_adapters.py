"""LoRA adapters in a plan: their bytes by hand, and what they add to a step."""

import json

import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.model.tensor_names import expected_shapes, linear_names
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy
from nemotrt.profiles.planning.answers.plan import make_plan
from nemotrt.profiles.planning.time.operators import decode_call, prefill_call
from nemotrt.profiles.planning.time.roofline import Scenario, roofline
from nemotrt.profiles.planning.time.step import call_seconds, step_time

NANO = DeploymentOptions("nemotron-nano-9b-v2", gpu="h100", isl=1024, osl=512, engine="vllm")


@pytest.mark.parametrize("model", ["nemotron-nano-9b-v2", "nemotron-3-nano-30b-a3b", "qwen3-8b"])
def test_bytes_are_those_of_both_matrices_of_each_linear(model: str) -> None:
    plain = deploy(NANO.at(model=model))
    found = deploy(NANO.at(model=model, adapters=3, adapter_rank=8))
    shapes = expected_shapes(plain.model)
    names = [name for name in linear_names(plain.model) if ".experts." not in name]
    want = 3 * 8 * sum(sum(shapes[name]) for name in names) * 2
    assert found.fit.budget.weights_bytes - plain.fit.budget.weights_bytes == want
    shared = deploy(NANO.at(model=model, adapters=3, adapter_rank=8, tp=2))
    assert shared.fit.budget.weights_bytes <= found.fit.budget.weights_bytes // 2 + 1


def test_an_adapter_of_the_9b_by_hand() -> None:
    """27 Mamba, 25 MLP and 4 attention layers of 4480; the native engine holds float32."""
    mamba = (4480 + 22656) + (10240 + 4480)
    mlp = 2 * (4480 + 15680)
    attention = 2 * (4480 + 5120) + 2 * (4480 + 1024)
    found = deploy(NANO.at(adapters=1, adapter_rank=1))
    assert found.adapters is not None
    elements = 27 * mamba + 25 * mlp + 4 * attention
    assert found.adapters.num_weights(found.model) == elements
    assert found.adapters.num_bytes(found.model) == 2 * elements


def test_a_step_reads_them_and_each_token_multiplies_its_own() -> None:
    plain, found = deploy(NANO), deploy(NANO.at(adapters=4, adapter_rank=16))
    assert found.adapters is not None
    for call in (decode_call(8, 512), prefill_call(2, 0, 1000)):
        own = next(one for one in found.sharded.operators(call) if one.name == "adapters")
        assert own.num_bytes == found.adapters.num_bytes(found.model)
        assert own.num_flops == 2 * call.num_tokens * found.adapters.num_weights(found.model)
        on = roofline(found.gpu, found.engine, Scenario.BEST)
        assert step_time(found.sharded, on, call).total > step_time(plain.sharded, on, call).total
        told = step_time(found.sharded, on, call).total / 1e3
        assert call_seconds(found.sharded, on)(call) == pytest.approx(told, rel=1e-9)
    both = [make_plan(one, 8).tokens_per_s.best for one in (plain, found)]
    assert 0.5 * both[0] < both[1] < both[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--adapters", "2", "--gpu", "a10g"], "runs none beside its weights"),
        (["--adapter-rank", "8"], "--adapter-rank needs --adapters"),
        (["--adapters", "0"], "0 is not in the range"),
        (
            ["--gpu", "h100", "--engine", "vllm", "--adapters", "1", "--launch", "vllm"],
            "--adapters: --launch",
        ),
        (
            ["--gpu", "h100", "--engine", "vllm", "--adapters", "1", "--baseline", "qwen3-8b"],
            "--adapters: --baseline",
        ),
    ],
)
def test_what_has_no_effect_is_refused(words: list[str], message: str) -> None:
    found = CliRunner().invoke(main, ["plan", NANO.model, *words])
    assert found.exit_code == 2
    assert message in " ".join(found.output.split())


def test_a_plan_says_what_they_take() -> None:
    command = ["plan", NANO.model, "--gpu", "h100", "--engine", "vllm", "--adapters", "2"]
    found = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
    assert any("2 adapters of rank 16 in every linear" in note for note in found["notes"])
