"""Sliding windows are those of transformers' own classes, in layers, bytes and reads."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.errors import ConfigError
from nemotrt.profiles.planning.answers.notes import notes_of
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy
from nemotrt.profiles.planning.memory.request_memory import RequestMemory, request_memory
from nemotrt.profiles.planning.sources.known_models import load_source
from nemotrt.profiles.planning.sources.windows import Windows, windows_of
from nemotrt.profiles.planning.time.engine_profile import Paging, load_engine
from nemotrt.profiles.planning.time.operators import decode_call, prefill_call
from nemotrt.profiles.planning.time.roofline import Scenario, roofline
from nemotrt.profiles.planning.time.step import ShardedModel, call_seconds, step_time

SIZES = {
    "num_hidden_layers": 7,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 64,
    "pad_token_id": 0,
    "sliding_window": 16,
}
OF_TYPE: dict[str, dict[str, Any]] = {
    "gemma2": {},
    "gemma3_text": {},
    "cohere2": {},
    "olmo3": {},
    "exaone4": {},
    "mistral": {},
    "ministral": {},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 3},
    "qwen3": {"use_sliding_window": True, "max_window_layers": 5},
}


@pytest.fixture(scope="module", params=OF_TYPE)
def config(request: pytest.FixtureRequest) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(request.param, **SIZES, **OF_TYPE[request.param])


def test_layers_are_those_of_transformers(config: Any) -> None:
    """By `layer_types`, and without them by the type's own rule."""
    raw = json.loads(config.to_json_string(use_diff=False))
    told = getattr(config, "layer_types", None)
    sliding = list(told).count("sliding_attention") if told else 7
    for given_raw in (raw, {key: value for key, value in raw.items() if key != "layer_types"}):
        assert windows_of(given_raw, 7, "a file") == Windows(16, sliding, 7)
    assert windows_of(raw | {"sliding_window": None}, 7, "a file") is None


def test_bytes_are_those_of_its_cache(config: Any) -> None:
    """A static cache holds a whole window; a dynamic one drops its oldest token."""
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache, StaticCache

    raw = json.loads(config.to_json_string(use_diff=False))
    source = Path("config.json")
    windows = windows_of(raw, 7, str(source))
    assert windows is not None
    model = AutoModelForCausalLM.from_config(config).to(torch.float32)
    static = StaticCache(config=config, max_cache_len=48)
    dynamic = DynamicCache(config=config)
    tokens = torch.arange(40)[None] % 63 + 1
    with torch.no_grad():
        for cache in (static, dynamic):
            model(tokens, cache=cache, use_cache=True)
    token_bytes = 2 * 2 * 8 * 4  # K and V of two heads of 8, in float32
    held = windows.num_layers * 16 + (7 - windows.num_layers) * 40
    kept = [layer.keys.shape[-2] for layer in static.layers]
    assert sum(min(length, 40) for length in kept) == held
    dropped = sum(layer.keys.shape[-2] for layer in dynamic.layers)
    assert held - windows.num_layers <= dropped <= held
    found = request_memory(
        load_source("tiny-dense").model, load_engine("sglang"), NumberFormat.FP32, NumberFormat.FP32
    )
    assert found.window_tokens == 0
    mine = replace(
        found,
        kv_cache_bytes_per_token=7 * token_bytes,
        window_tokens=16,
        window_bytes_per_token=windows.num_layers * token_bytes,
    )
    assert mine.total_bytes(40) - mine.own_state_bytes == held * token_bytes


@given(st.integers(1, 7), st.integers(1, 500), st.integers(0, 10**7), st.integers(1, 40))
def test_the_longest_sequence_that_fits_fits(
    layers: int, tokens: int, available: int, block: int
) -> None:
    memory = RequestMemory(
        7 * 128,
        0,
        0,
        Paging.BLOCKS,
        block,
        window_tokens=tokens,
        window_bytes_per_token=layers * 128,
    )
    longest = memory.max_tokens(available)
    assert memory.total_bytes(longest) <= available or longest == 0
    if layers < 7:
        assert memory.total_bytes(longest + 1) > available


def test_a_plan_counts_them_where_the_engine_lets_go(tmp_path: Path) -> None:
    raw = {"model_type": "gemma2", **SIZES, "num_hidden_layers": 8, "sliding_window": 1024}
    path = tmp_path / "windowed.json"
    path.write_text(json.dumps(raw))
    options = DeploymentOptions(str(path), gpu="h100", isl=8192, osl=64, engine="vllm")
    found = deploy(options)
    assert found.windows == Windows(1024, 4, 8)
    whole = deploy(options.at(engine="tensorrt"))
    assert whole.windows is None
    assert found.sharded.windows == found.windows and whole.sharded.windows is None
    kept = deploy(options.at(engine="sglang"))  # which reads the window of a whole cache
    assert kept.windows is None and kept.sharded.windows == found.windows
    assert any("sglang keeps all tokens of 4 layers" in note for note in notes_of(kept, 1))
    token = found.request.kv_cache_bytes_per_token
    assert found.request.total_bytes(8192) == token // 2 * (8192 + 1024)
    assert found.max_batch_size() >= whole.max_batch_size()


@pytest.mark.parametrize(
    ("context", "reads"), [(100, 100), (1024, 1024), (5000, (5000 + 1024) / 2)]
)
def test_a_decode_step_reads_the_window(context: int, reads: float) -> None:
    source, engine = load_source("llama-3.1-8b"), load_engine("vllm")
    formats = deploy(DeploymentOptions("llama-3.1-8b", gpu="h100", engine="vllm")).formats
    sharded = ShardedModel(source.model, formats, windows=Windows(1024, 16, 32))
    call = sharded.seen(decode_call(3, context))
    assert call.num_cached_tokens == call.num_pairs == 3 * reads
    on = roofline(deploy(DeploymentOptions("llama-3.1-8b", gpu="h100")).gpu, engine, Scenario.BEST)
    seconds = call_seconds(sharded, on)
    for one in (decode_call(3, context), prefill_call(2, context, 700)):
        assert seconds(one) == pytest.approx(step_time(sharded, on, one).total / 1e3, rel=1e-9)


@pytest.mark.parametrize("window", [0, -4, "many", True])
def test_a_window_is_a_size(window: object) -> None:
    with pytest.raises(ConfigError, match="sliding_window must be a number of tokens"):
        windows_of({"model_type": "mistral", "sliding_window": window}, 4, "a file")
