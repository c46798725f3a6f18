"""Bytes against figures that others published or that can be checked by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.errors import ArtefactError, ConfigError, NoFeasiblePlanError
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.memory.capacity import GIB
from nemotrt.profiles.planning.memory.request_memory import request_memory
from nemotrt.profiles.planning.memory.weights import num_parameters, weights_bytes
from nemotrt.profiles.planning.sources.known_models import known_models, load_model
from nemotrt.profiles.planning.time.engine_profile import Admission, load_engine
from nemotrt.profiles.planning.time.formats import Formats

MIB = 2**20
Make = Callable[..., Deployment]


@pytest.mark.parametrize(
    ("name", "billions", "gib"),
    [
        ("nemotron-nano-9b-v2", 8.888, 16.56),  # ModelOpt's README measured 16.6 GiB
        ("nemotron-nano-12b-v2", 12.310, 22.93),  # ModelOpt's README measured 22.9 GiB
        ("nemotron-h-8b", 8.101, 15.09),
        ("qwen3-8b", 8.191, 15.26),
        ("llama-3.1-8b", 8.030, 14.96),
        ("mistral-7b", 7.242, 13.49),
    ],
)
def test_weights(name: str, billions: float, gib: float) -> None:
    model = load_model(name)
    assert num_parameters(model) / 1e9 == pytest.approx(billions, abs=0.001)
    assert weights_bytes(model, formats(Precision.BF16)) / GIB == pytest.approx(gib, abs=0.005)


@pytest.mark.parametrize(
    ("name", "num_bytes"),
    [
        ("nemotron-nano-9b-v2", 16_384),  # 4 layers x 2 x 8 heads x 128 x 2 bytes
        ("nemotron-nano-12b-v2", 24_576),
        ("qwen3-8b", 147_456),
        ("llama-3.1-8b", 131_072),
        ("llama-7b", 524_288),
    ],
)
def test_kv_bytes_per_token(name: str, num_bytes: int) -> None:
    request = request_memory(
        load_model(name), load_engine("nemotrt"), NumberFormat.BF16, NumberFormat.FP32
    )
    assert request.kv_cache_bytes_per_token == num_bytes


def test_state_bytes_of_nano_9b() -> None:
    request = request_memory(
        load_model("nemotron-nano-9b-v2"),
        load_engine("nemotrt"),
        NumberFormat.BF16,
        NumberFormat.FP32,
    )
    assert request.ssm_state_bytes == 27 * 128 * 80 * 128 * 4 == 135.0 * MIB
    assert request.conv_state_bytes == 27 * 3 * 12288 * 2
    assert request.conv_state_bytes / MIB == pytest.approx(1.9, abs=0.01)


@pytest.mark.parametrize(
    ("ssm", "tokens_per_block", "gib"),
    # 672 tokens: vllm-project/vllm#24280; 0.451 and 0.521 GiB for 24,576 tokens by hand:
    # 37 + 7 pages of 4 x 672 x 4096 bytes, and 19 + 7 pages of 4 x 1312 x 4096 bytes.
    [(NumberFormat.BF16, 672, 0.451), (NumberFormat.FP32, 1312, 0.521)],
)
def test_vllm_pages_hold_a_state(ssm: NumberFormat, tokens_per_block: int, gib: float) -> None:
    model = load_model("nemotron-nano-9b-v2")
    request = request_memory(model, load_engine("vllm"), NumberFormat.BF16, ssm)
    assert request.tokens_per_block == tokens_per_block
    assert request.total_bytes(24_576) / GIB == pytest.approx(gib, abs=0.001)


@given(st.integers(1, 300_000), st.sampled_from(["nemotrt", "vllm", "tensorrt-llm"]))
def test_longest_sequence_inverts_the_cost(num_tokens: int, engine: str) -> None:
    model = load_model("nemotron-nano-9b-v2")
    request = request_memory(model, load_engine(engine), NumberFormat.BF16, NumberFormat.FP32)
    cost = request.total_bytes(num_tokens)
    longest = request.max_tokens(cost)
    assert num_tokens <= longest < num_tokens + request.tokens_per_block
    assert request.max_tokens(cost - 1) < longest


def formats(precision: Precision) -> Formats:
    return Formats(precision, NumberFormat.BF16, NumberFormat.FP32)


def test_quantized_weights_leave_embeddings_and_head() -> None:
    model = load_model("nemotron-nano-9b-v2")
    outside = 2 * 131_072 * 4480
    fp8 = weights_bytes(model, formats(Precision.FP8))
    assert fp8 < weights_bytes(model, formats(Precision.BF16)) / 2 + outside * 1.01
    # ModelOpt's README measured 9.6 GiB; some of its layers stay in 16 bits.
    assert fp8 / GIB == pytest.approx(9.6, rel=0.03)
    assert fp8 < weights_bytes(model, formats(Precision.FP8_DYNAMIC)) < fp8 * 1.01


@pytest.mark.parametrize(
    ("ssm", "engine", "num_sequences"),
    [("fp32", "nemotrt", 7), ("bf16", "nemotrt", 8), ("fp32", "vllm", 7), ("bf16", "vllm", 8)],
)
def test_a10g_holds(deployment: Make, ssm: str, engine: str, num_sequences: int) -> None:
    # arXiv 2508.14444, table 10: batch 8 is the largest that fits, each at its full length.
    whole = {"gpu": "a10g", "engine": engine, "admission": Admission.RESERVE}
    nano = deployment(ssm_dtype=NumberFormat(ssm), **whole)
    assert nano.max_batch_size() == num_sequences
    assert deployment("qwen3-8b", **whole).max_batch_size() == 1


def test_128k_context_in_the_papers_budget(deployment: Make) -> None:
    # arXiv 2508.14444: 22.06 GiB x 0.95 - 1.3 GiB = 19.66 GiB, one sequence of 128k tokens.
    options = {"gpu": "a10g", "engine": "nemotrt", "reserve_gib": 1.3, "isl": 130_048, "osl": 1_024}
    nano = deployment(**options)
    assert nano.fit.budget.usable_bytes / GIB == pytest.approx(19.66, abs=0.01)
    assert nano.max_batch_size() == 1
    for name in ("nemotron-nano-12b-v2", "qwen3-8b", "llama-3.1-8b"):
        with pytest.raises(NoFeasiblePlanError, match="GiB are missing"):
            deployment(name, **options).max_batch_size()


def test_mean_occupancy_admits_more(deployment: Make) -> None:
    reserve = deployment(gpu="h100").max_batch_size()
    assert deployment(gpu="h100", admission=Admission.MEAN).max_batch_size() > reserve


@given(st.integers(1, 4000), st.integers(1, 4000), st.floats(0.5, 0.99))
def test_more_memory_holds_no_less(isl: int, osl: int, share: float) -> None:
    from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy

    options = DeploymentOptions("nemotron-nano-9b-v2", "h100", isl=isl, osl=osl)
    less = deploy(options.at(memory_utilization=share)).max_batch_size()
    assert less <= deploy(options.at(memory_utilization=share + 0.01)).max_batch_size()


def test_memory_adds_up(deployment: Make) -> None:
    nano = deployment(gpu="a10g")
    memory = nano.fit.memory(7, nano.planned_tokens)
    parts = (
        memory.weights_bytes
        + memory.kv_cache_bytes
        + memory.state_bytes
        + memory.workspace_bytes
        + memory.free_bytes
        + memory.withheld_bytes
    )
    assert parts == 22587 * MIB
    assert 0 <= memory.free_bytes < nano.request.total_bytes(nano.planned_tokens)


def test_known_models_read() -> None:
    for name in known_models():
        assert num_parameters(load_model(name)) > 3.9e9


def test_other_dense_config(tmp_path: Path) -> None:
    raw = {
        "model_type": "qwen2",
        "num_hidden_layers": 28,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(raw))
    # The hub page of Qwen2-7B says 7.62 B (biases are 0.1 million of them).
    assert num_parameters(load_model(str(tmp_path))) / 1e9 == pytest.approx(7.62, abs=0.01)
    for name, value in (("num_experts", 8), ("kv_lora_rank", 512)):
        path.write_text(json.dumps({**raw, name: value}))
        with pytest.raises(ConfigError, match=name):
            load_model(str(path))
    path.write_text("{")
    with pytest.raises(ArtefactError, match="not JSON"):
        load_model(str(path))
    with pytest.raises(ConfigError, match="did you mean 'qwen3-8b'"):
        load_model("qwen3-9b")


@pytest.mark.parametrize(
    "model_type",
    [
        "llama", "qwen2", "mistral", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "starcoder2",
        "gpt_neox", "stablelm", "olmo2", "cohere", "granite", "smollm3", "glm", "nemotron", "arcee",
    ],
)  # fmt: skip
def test_dense_configs_against_transformers(tmp_path: Path, model_type: str) -> None:
    """As many weights as the real class makes, from the config.json that it writes."""
    import torch
    import transformers

    sizes = {"num_hidden_layers": 2}
    if model_type == "nemotron":  # its class has no default that its own model takes
        sizes["num_key_value_heads"] = 8
    config = transformers.AutoConfig.for_model(model_type, **sizes)
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    expected = sum(parameter.numel() for parameter in model.parameters())
    assert num_parameters(load_model(str(tmp_path))) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    "model_type",
    ["rwkv7", "recurrent_gemma", "lfm2", "bert", "t5", "mamba2", "falcon_h1", "no_such_type"],
)
def test_types_that_nobody_read_are_refused(tmp_path: Path, model_type: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**DENSE, "model_type": model_type}))
    with pytest.raises(ConfigError, match=f"model_type '{model_type}' is none that the planner"):
        load_model(str(path))


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
@pytest.mark.parametrize("mixer", ["linear_attention", "conv", "recurrent"])
def test_layers_that_do_not_attend_are_refused(tmp_path: Path, mixer: str, model_type: str) -> None:
    path = tmp_path / "config.json"
    layers = {"layer_types": ["full_attention", mixer], "model_type": model_type}
    path.write_text(json.dumps({**DENSE, **layers}))
    with pytest.raises(ConfigError, match=f"layer_types has {mixer}"):
        load_model(str(path))


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention_chunk_size", 8192),
        ("cross_attention_layers", [3, 8]),
        ("block_configs", [{"attention": {"no_op": True}}]),
        ("num_key_value_heads_per_layer", [4, 2]),
        ("num_kv_shared_layers", 10),
        ("ssm_state_size", 128),
        ("linear_attn_config", {"kda_layers": [1]}),
        ("attn_type_list", [0, 1]),
    ],
)
def test_layers_of_other_kinds_under_a_known_type_are_refused(
    tmp_path: Path, model_type: str, key: str, value: object
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**DENSE, "model_type": model_type, key: value}))
    with pytest.raises(ConfigError, match=f"{key} means .*, which the planner does not model"):
        load_model(str(path))


DENSE = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
