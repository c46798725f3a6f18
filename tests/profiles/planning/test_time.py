"""Step and prefill times: hand arithmetic, published runs, and what physics forbids."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.gpu_profile import Datasheet, GpuProfile, known_gpus, load_gpu
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy
from nemotrt.profiles.planning.answers.plan import Range, make_plan
from nemotrt.profiles.planning.memory.request_memory import request_memory
from nemotrt.profiles.planning.memory.weights import num_parameters, weights_bytes
from nemotrt.profiles.planning.sources.known_models import load_model
from nemotrt.profiles.planning.sources.number_format import check_precision
from nemotrt.profiles.planning.time.engine_profile import Overhead, load_engine
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.profiles.planning.time.operators import decode_call, operators
from nemotrt.profiles.planning.time.play.closed_loop import (
    Cycle,
    SteadyState,
    Users,
    cycle,
    steady_state,
)
from nemotrt.profiles.planning.time.roofline import Scenario, roofline
from nemotrt.profiles.planning.time.step import ShardedModel, choosing, decode_step_time, prefill_s
from support.examples import up_to

Make = Callable[..., Deployment]
BF16 = Formats(Precision.BF16, NumberFormat.BF16, NumberFormat.FP32)
GPUS = st.sampled_from(known_gpus())
MODELS = st.sampled_from(["nemotron-nano-9b-v2", "qwen3-8b", "llama-7b"])
BATCHES = st.integers(1, 512)
LENGTHS = st.integers(1, 20_000)


def gpu_with(**figures: object) -> GpuProfile:
    gpu = load_gpu("h100")
    datasheet = Datasheet(**{**gpu.datasheet.model_dump(), **figures})
    return gpu.model_copy(update={"datasheet": datasheet})


def state(model: str, gpu: GpuProfile, load: tuple[int, int, int], scenario: Scenario) -> Cycle:
    """By mean rates, which takes no play."""
    on = roofline(gpu, load_engine("vllm"), scenario)
    return cycle(ShardedModel(load_model(model), BF16), on, Users(*load, load[2], 2048))


def loop(
    model: str, gpu: GpuProfile, load: tuple[int, int, int], batch: int, scenario: Scenario
) -> SteadyState:
    sharded = ShardedModel(load_model(model), BF16)
    on = roofline(gpu, load_engine("vllm"), scenario)
    return steady_state(sharded, on, Users(*load, batch, 2048))


def random_config(hidden: int, pattern: str, heads: int, mamba_heads: int) -> ModelConfig:
    return parse_model_config(
        {
            "model_type": "nemotron_h",
            "hybrid_override_pattern": pattern,
            "hidden_size": hidden,
            "intermediate_size": 3 * hidden,
            "num_attention_heads": heads * 2,
            "num_key_value_heads": heads,
            "head_dim": 64,
            "mamba_num_heads": mamba_heads * 8,
            "mamba_head_dim": 64,
            "ssm_state_size": 128,
            "n_groups": 8,
            "conv_kernel": 4,
            "vocab_size": 32000,
        }
    )


def test_decode_reads_every_weight_but_the_embeddings_once() -> None:
    model = load_model("qwen3-8b")
    found = {op.name: op for op in operators(model, BF16, decode_call(1, 1000))}
    weights = sum(op.num_bytes for op in found.values() if op.resource == "weights")
    embeddings = model.vocab_size * model.hidden_size
    assert weights == pytest.approx(2 * (num_parameters(model) - embeddings), rel=1e-3)
    # 36 layers x 2 x 8 heads x 128 x 2 bytes x 1000 tokens
    assert found["attention"].num_bytes == pytest.approx(147_456_000, rel=5e-3)


def test_ssm_traffic_of_nano_9b_by_hand() -> None:
    model = load_model("nemotron-nano-9b-v2")
    found = {op.name: op for op in operators(model, BF16, decode_call(256, 1000))}
    # 256 sequences x 135 MiB, read and written: 72.5 GB, which takes an H100 21.6 ms at best.
    assert found["ssm"].num_bytes / 1e9 == pytest.approx(72.5, rel=0.03)
    floor = roofline(load_gpu("h100"), load_engine("vllm"), Scenario.FLOOR)
    assert floor.seconds(found["ssm"]) * 1e3 == pytest.approx(21.6 * 1.02, rel=0.02)


def test_tokens_chosen_on_the_gpu_cost_passes_over_their_logits() -> None:
    """114 rows of 131,072 float32 are 60 MB; an engine that does not say so has no such term."""
    model = load_model("nemotron-nano-9b-v2")
    ours = load_engine("tensorrt")
    assert ours.choosing is not None
    [found] = choosing(model, ours, decode_call(114, 1000))
    assert found.num_bytes / ours.choosing.passes == pytest.approx(59.8e6, rel=1e-3)
    assert list(choosing(model, load_engine("vllm"), decode_call(114, 1000))) == []


def test_a_step_is_no_shorter_than_the_hosts_work_beside_it() -> None:
    slow_host = Overhead(low=100, best=1000, high=2000, source="a test")
    engine = load_engine("tensorrt")
    assert engine.choosing is not None
    slow = engine.choosing.model_copy(update={"host_us": slow_host})
    slow_engine = engine.model_copy(update={"choosing": slow})
    work = ShardedModel(load_model("nemotron-nano-9b-v2"), BF16)
    for scenario, batch, host_ms in [
        (Scenario.BEST, 1, 0),  # hidden: an H100 takes longer than one millisecond
        (Scenario.BEST, 200, 200),
        (Scenario.LOW, 200, 400),
        (Scenario.FLOOR, 200, 0),
    ]:
        free = decode_step_time(work, roofline(load_gpu("h100"), engine, scenario), batch, 1000)
        step = decode_step_time(
            work, roofline(load_gpu("h100"), slow_engine, scenario), batch, 1000
        )
        assert step.total == pytest.approx(max(free.total, host_ms))
        assert step.overhead - free.overhead == pytest.approx(step.total - free.total)


def test_qwen3_8b_floor_on_a10g() -> None:
    # 15.1 GB of weights and 2.4 GB of cache (16k tokens) at 600 GB/s are 29.4 ms: 34 tokens/s.
    on = roofline(load_gpu("a10g"), load_engine("vllm"), Scenario.FLOOR)
    step = decode_step_time(ShardedModel(load_model("qwen3-8b"), BF16), on, 1, 16_384)
    assert 1e3 / step.total == pytest.approx(34.0, abs=0.2)


@pytest.mark.parametrize("ssm", ["fp32", "bf16"])
def test_paper_batch_8_on_a10g(deployment: Make, ssm: str) -> None:
    # arXiv 2508.14444, table 10: 156.42 tokens/s at 8k in, 16k out, batch 8.
    nano = deployment(engine="vllm", ssm_dtype=NumberFormat(ssm), reserve_gib=0.0)
    rate = nano.steady_state(8, 8, Scenario.BEST).tokens_per_s
    assert rate == pytest.approx(156.42, rel=0.12 if ssm == "fp32" else 0.13)  # not stated which


@settings(max_examples=up_to(60), deadline=None)
@given(MODELS, GPUS, BATCHES, LENGTHS, LENGTHS)
def test_no_prediction_beats_the_floor(
    model: str, gpu: str, batch: int, isl: int, osl: int
) -> None:
    profile, load = load_gpu(gpu), (isl, osl, batch)
    rates = {s: state(model, profile, load, s).tokens_per_s for s in Scenario}
    assert 0 < rates[Scenario.LOW] <= rates[Scenario.BEST] <= rates[Scenario.HIGH]
    assert rates[Scenario.HIGH] <= rates[Scenario.FLOOR]
    sheet = profile.datasheet
    config = load_model(model)
    flops = 2 * (num_parameters(config) - 2 * config.vocab_size * config.hidden_size)
    tokens = rates[Scenario.HIGH] * (isl + osl - 1) / osl  # osl - 1 tokens are fed back
    assert tokens * flops <= sheet.tflops["bf16"] * 1e12


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12).map(lambda n: 256 * n),
    st.text("M-*", min_size=1, max_size=20),
    st.integers(1, 8),
    st.integers(1, 16),
    GPUS,
    BATCHES,
    LENGTHS,
)
def test_floor_holds_for_random_models(
    hidden: int, pattern: str, heads: int, mamba_heads: int, gpu: str, batch: int, context: int
) -> None:
    sharded = ShardedModel(random_config(hidden, pattern, heads, mamba_heads), BF16)
    profile, engine = load_gpu(gpu), load_engine("nemotrt")
    step = decode_step_time(sharded, roofline(profile, engine, Scenario.HIGH), batch, context)
    found = list(operators(sharded.model, BF16, decode_call(batch, context)))
    moved_ms = sum(op.num_bytes for op in found) / profile.datasheet.bandwidth_gb_per_s / 1e6
    multiplied_ms = sum(op.num_flops for op in found) / profile.datasheet.tflops["bf16"] / 1e9
    assert step.total >= max(moved_ms, multiplied_ms)


@settings(max_examples=12, deadline=None)
@given(MODELS, st.floats(500, 5000), st.floats(1.01, 3), BATCHES, LENGTHS)
def test_more_bandwidth_is_never_slower(
    model: str, bandwidth: float, factor: float, batch: int, isl: int
) -> None:
    load = (isl, 512, batch)
    slow = loop(model, gpu_with(bandwidth_gb_per_s=bandwidth), load, batch, Scenario.BEST)
    fast = loop(model, gpu_with(bandwidth_gb_per_s=bandwidth * factor), load, batch, Scenario.BEST)
    assert fast.tokens_per_s >= slow.tokens_per_s
    assert fast.tpot_ms <= slow.tpot_ms


@settings(max_examples=30, deadline=None)
@given(MODELS, GPUS, st.integers(1, 400), LENGTHS)
def test_a_larger_batch_serves_more_but_each_slower(
    model: str, gpu: str, batch: int, isl: int
) -> None:
    profile = load_gpu(gpu)
    one = state(model, profile, (isl, 512, batch), Scenario.BEST)
    more = state(model, profile, (isl, 512, batch + 1), Scenario.BEST)
    assert more.tokens_per_s >= one.tokens_per_s * 0.98  # a lone last prompt wastes its chunk
    assert more.step.total >= one.step.total


def test_queue_beyond_the_batch() -> None:
    gpu = load_gpu("a10g")
    alone = loop("qwen3-8b", gpu, (8192, 1024, 1), 1, Scenario.BEST)
    queued = loop("qwen3-8b", gpu, (8192, 1024, 3), 1, Scenario.BEST)
    assert queued.tokens_per_s == alone.tokens_per_s
    cycle_ms = alone.ttft_ms + 1023 * alone.tpot_ms
    assert queued.queue_ms == pytest.approx(2 * cycle_ms, rel=1e-4)  # a mean context is whole


def test_prefill_of_chunks_adds_up() -> None:
    on = roofline(load_gpu("h100"), load_engine("vllm"), Scenario.BEST)
    sharded = ShardedModel(load_model("qwen3-8b"), BF16)
    whole, parts = prefill_s(sharded, on, 8192, 8192), prefill_s(sharded, on, 8192, 1024)
    assert whole <= parts <= whole * 1.25
    assert prefill_s(sharded, on, 128, 2048, 16) < 16 * prefill_s(sharded, on, 128, 2048)


def test_tp_splits_the_work(deployment: Make) -> None:
    one, two = deployment(gpu="h100"), deployment(gpu="h100", tp=2)
    assert two.fit.budget.weights_bytes * 2 == pytest.approx(one.fit.budget.weights_bytes, abs=2)
    alone = one.steady_state(8, 8, Scenario.BEST)
    shared = two.steady_state(8, 8, Scenario.BEST)
    assert alone.tokens_per_s < shared.tokens_per_s < 2 * alone.tokens_per_s
    assert shared.step.interconnect > 0


def test_energy_is_power_over_rate(deployment: Make) -> None:
    plan = make_plan(deployment(gpu="h100"), batch_size=8)
    assert plan.joules_per_token is not None and plan.power_w is not None
    assert plan.joules_per_token.best == pytest.approx(plan.power_w.best / plan.tokens_per_s.best)
    # 8 sequences multiply little: near 0.69 of 700 W; a large batch takes more, never above.
    assert plan.power_w.best == pytest.approx(700 * 0.69, rel=0.05)
    full = make_plan(deployment(gpu="h100"))
    assert full.power_w is not None and plan.power_w.best < full.power_w.best <= 700


def test_price(deployment: Make) -> None:
    plan = make_plan(deployment(), usd_per_hour=1.0)
    expected = 1e6 / 3600 / plan.tokens_per_s.best
    assert isinstance(plan.usd_per_million_tokens, Range)
    assert plan.usd_per_million_tokens.best == pytest.approx(expected)


@pytest.mark.parametrize("gpu", ["a10g", "a10", "a100", "a100-40", "a100-80-pcie"])
@pytest.mark.parametrize("precision", [Precision.FP8, Precision.FP8_DYNAMIC])
def test_ampere_refuses_fp8(gpu: str, precision: Precision) -> None:
    with pytest.raises(ConfigError, match=r"no FP8 tensor cores.*choose bf16, int8-wo, int8-sq"):
        check_precision(load_gpu(gpu), precision)


def test_a_missing_figure_raises(deployment: Make) -> None:
    engine, sharded = load_engine("vllm"), ShardedModel(load_model("qwen3-8b"), BF16, tp=2)
    on = roofline(gpu_with(interconnect_gb_per_s=None), engine, Scenario.BEST)
    with pytest.raises(ConfigError, match="interconnect_gb_per_s is missing"):
        decode_step_time(sharded, on, 1, 100)
    on = roofline(gpu_with(num_sms=None), load_engine("tensorrt-llm-0.9"), Scenario.BEST)
    with pytest.raises(ConfigError, match="num_sms is missing"):
        decode_step_time(ShardedModel(load_model("qwen3-8b"), BF16), on, 1, 100)
    with pytest.raises(ConfigError, match="no fp32 rate"):
        deployment(precision=Precision.FP32)
    with pytest.raises(ConfigError, match="does not divide 40 attention heads"):
        deployment(gpu="h100", tp=3)


@settings(max_examples=up_to(60), deadline=None)
@given(
    MODELS,
    st.sampled_from([Precision.BF16, Precision.INT8_WO, Precision.INT8_SQ, Precision.FP8]),
    st.sampled_from(["nemotrt", "vllm", "tensorrt-llm", "sglang"]),
    st.floats(100, 10_000),
    st.floats(10, 5_000),
    BATCHES,
    LENGTHS,
)
def test_no_step_beats_a_random_gpu(
    model: str,
    precision: Precision,
    engine: str,
    bandwidth: float,
    tflops: float,
    batch: int,
    context: int,
) -> None:
    """Bytes that must move and products that must be made, counted apart from the operators."""
    gpu = gpu_with(
        bandwidth_gb_per_s=bandwidth, tflops=dict.fromkeys(("bf16", "int8", "fp8"), tflops)
    )
    config, profile = load_model(model), load_engine(engine)
    formats = Formats(precision, profile.kv_type(precision), NumberFormat.FP32)
    step = decode_step_time(
        ShardedModel(config, formats), roofline(gpu, profile, Scenario.HIGH), batch, context
    )
    request = request_memory(config, load_engine("nemotrt"), formats.kv, formats.ssm)
    embeddings = 2 * config.vocab_size * config.hidden_size
    states = 2 * (request.ssm_state_bytes + request.conv_state_bytes)  # read and written
    moved = weights_bytes(config, formats) - embeddings
    moved += batch * (context * request.kv_cache_bytes_per_token + states)
    products = 2 * batch * (num_parameters(config) - embeddings / 2)
    # Scales and norms are not counted by the operators: a thousandth.
    assert step.total >= 0.999 * max(moved / bandwidth / 1e6, products / tflops / 1e9)


@settings(max_examples=20, deadline=None)
@given(MODELS, st.integers(24_000, 200_000), st.integers(1, 100_000), LENGTHS, LENGTHS)
def test_more_memory_serves_no_less(model: str, mib: int, more: int, isl: int, osl: int) -> None:
    options = DeploymentOptions(model, "h100", isl=isl, osl=osl)
    rates = []
    for memory_mib in (mib, mib + more):
        one = deploy(options, gpu_with(memory_mib=memory_mib))
        batch = one.fit.max_batch_size(one.planned_tokens)
        rates.append(one.tokens_per_s(batch, batch, Scenario.BEST) if batch else 0.0)
    assert rates[1] >= rates[0] * 0.98  # a lone last prompt wastes its chunk
