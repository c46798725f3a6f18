"""config.json in every spelling, and one clear line for each that is not supported."""

import inspect
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import NemotronHConfig, Qwen3Config

from nemotrt.engines.model.hf_config import (
    parse_model_config,
    read_model_config,
)
from nemotrt.engines.model.model_config import LayerKind, MambaConfig
from nemotrt.engines.model.nemotron_h_config import ALIASES
from nemotrt.engines.model.tensor_names import expected_shapes
from nemotrt.errors import ArtefactError, ConfigError
from support import reference
from support.wide_checkpoint import FULL_PATTERN, raw_config

NANO_9B: dict[str, Any] = raw_config(FULL_PATTERN, 131072) | {
    "num_hidden_layers": 56,
    "layer_norm_epsilon": 1e-5,
    "time_step_limit": [0.0, math.inf],
    "mlp_hidden_act": "relu2",
    "torch_dtype": "bfloat16",
    "eos_token_id": 12,
}
# Source: shapes as in the models' published configs (facts repeated by several public repositories)
NANO_12B = NANO_9B | {
    "hybrid_override_pattern": "M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M-",
    "num_hidden_layers": 62,
    "hidden_size": 5120,
    "intermediate_size": 20480,
}
NEMOTRON_H_8B = NANO_9B | {
    "hybrid_override_pattern": "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
    "num_hidden_layers": 52,
    "hidden_size": 4096,
    "intermediate_size": 21504,
    "num_attention_heads": 32,
    "mamba_head_dim": 64,
}
QWEN3_8B: dict[str, Any] = {
    "model_type": "qwen3",
    "num_hidden_layers": 36,
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "tie_word_embeddings": False,
}


@pytest.mark.parametrize(
    ("raw", "billions", "kinds"),
    [
        (NANO_9B, 8.888, (27, 25, 4)),
        (NANO_12B, 12.310, (28, 28, 6)),
        (NEMOTRON_H_8B, 8.101, (24, 24, 4)),
        (QWEN3_8B, 8.191, (0, 36, 36)),
    ],
    ids=["nano-9b-v2", "nano-12b-v2", "nemotron-h-8b", "qwen3-8b"],
)
def test_parameter_counts_of_the_released_models(
    raw: dict[str, Any], billions: float, kinds: tuple[int, int, int]
) -> None:
    """The tensors that a config implies add up to the model's published size."""
    config = parse_model_config(raw)
    assert (
        config.num_mamba_layers,
        config.count(LayerKind.MLP),
        config.num_attention_layers,
    ) == kinds
    total = sum(math.prod(shape) for shape in expected_shapes(config).values())
    assert total / 1e9 == pytest.approx(billions, abs=0.001)


def test_derived_sizes_of_the_9b() -> None:
    config = parse_model_config(NANO_9B)
    assert config.mamba is not None
    assert config.pattern == FULL_PATTERN
    assert config.mamba.in_proj_size == 22656
    assert config.mamba.conv_dim == 12288
    assert config.kv_elements_per_token * 2 == 16384  # bytes of bfloat16
    assert config.ssm_state_elements * 4 == 27 * 128 * 80 * 128 * 4
    assert config.conv_state_elements == 27 * 3 * 12288
    assert config.eos_token_ids == (12,)
    assert not config.mamba.is_dt_limited


@pytest.mark.parametrize("words", [("mamba", "attention"), ("linear_attention", "full_attention")])
@pytest.mark.parametrize("field", ["layers_block_type", "layer_types"])
def test_layer_words_equal_the_pattern(field: str, words: tuple[str, str]) -> None:
    names = {"M": words[0], "-": "mlp", "*": words[1]}
    raw = {k: v for k, v in NANO_9B.items() if k != "hybrid_override_pattern"}
    raw[field] = [names[letter] for letter in FULL_PATTERN]
    assert parse_model_config(raw) == parse_model_config(NANO_9B)


def as_transformers_reads(raw: dict[str, Any]) -> dict[str, Any]:
    """Return what transformers' own config class makes of `raw`, under our names."""
    told = {key: value for key, value in raw.items() if key != "model_type"}
    config = (NemotronHConfig if raw["model_type"] == "nemotron_h" else Qwen3Config)(**told)
    eos = config.eos_token_id
    found = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
        "eos_token_ids": tuple(eos) if isinstance(eos, list) else (eos,),
    }
    if raw["model_type"] == "qwen3":
        rope = config.rope_parameters["rope_theta"]
        return found | {"norm_eps": config.rms_norm_eps, "rope_theta": rope}
    mamba = MambaConfig(
        config.mamba_num_heads,
        config.mamba_head_dim,
        config.ssm_state_size,
        config.n_groups,
        config.conv_kernel,
        config.chunk_size,
        tuple(config.time_step_limit),
    )
    pattern = config.hybrid_override_pattern
    return found | {"norm_eps": config.layer_norm_epsilon, "pattern": pattern, "mamba": mamba}


# Every field by every name that transformers takes it by; a null or an absent one has a default.
SPELLINGS: list[dict[str, Any]] = [
    {},
    {"n_groups": None, "mamba_n_groups": 4},
    {"n_groups": 2, "mamba_n_groups": 4},
    {"conv_kernel": None, "mamba_d_conv": 3},
    {"conv_kernel": 4, "mamba_d_conv": 3},
    {"chunk_size": None, "mamba_chunk_size": 256},
    {"chunk_size": 128, "mamba_chunk_size": 256},
    {"time_step_limit": None, "mamba_dt_limit": [0.0, 0.5]},
    {"mamba_dt_limit": [0.0, 0.5]},
    {"mamba_conv_bias": True, "use_conv_bias": False},
    {"mamba_expand": 3, "mamba_dt_min": 0.01, "mamba_dt_max": 0.2, "mamba_dt_init_floor": 1e-3},
    {"layers_block_type": ["mamba", "mlp", "attention"], "num_hidden_layers": 3},
    {"layers_block_type": ["linear_attention", "full_attention"], "num_hidden_layers": 2},
    {
        "hybrid_override_pattern": None,
        "layer_types": ["mamba", "mlp", "full_attention"],
        "num_hidden_layers": 3,
    },
    {"num_hidden_layers": None},
    {"num_key_value_heads": ...},
    {"head_dim": ...},
    {"max_position_embeddings": ...},
    {"layer_norm_epsilon": ...},
    {"chunk_size": ...},
    {"time_step_limit": ...},
    {"tie_word_embeddings": ...},
    {"tie_word_embeddings": True},
    {"eos_token_id": [2, 12]},
    {"num_local_experts": 4, "num_nextn_predict_layers": 2, "mtp_hybrid_override_pattern": "*-"},
]


@pytest.mark.parametrize("change", SPELLINGS, ids=str)
def test_every_spelling_is_read_as_transformers_reads_it(change: dict[str, Any]) -> None:
    """`...` takes the field away; null beside an older name is no spelling of transformers'."""
    raw = {key: value for key, value in (NANO_9B | change).items() if value is not ...}
    config = parse_model_config(raw)
    theirs = {key: value for key, value in raw.items() if value is not None}
    for name, value in as_transformers_reads(theirs).items():
        assert getattr(config, name) == value, name


@pytest.mark.parametrize("name", [None, "num_key_value_heads", "head_dim", "rms_norm_eps"])
@pytest.mark.parametrize("other", ["max_position_embeddings", "rope_theta", "tie_word_embeddings"])
def test_what_a_qwen3_config_leaves_out(name: str | None, other: str) -> None:
    raw = {k: v for k, v in QWEN3_8B.items() if k not in (name, other)} | {"eos_token_id": 3}
    config = parse_model_config(raw)
    for field, value in as_transformers_reads(raw).items():
        assert getattr(config, field) == value, field


def test_every_alias_of_transformers_is_one_of_ours() -> None:
    """Whatever its source renames, we rename, unless the field decides nothing here."""
    without_effect = {"mamba_expand", "mamba_dt_min", "mamba_dt_max", "mamba_dt_init_floor"}
    source = inspect.getsource(NemotronHConfig.__post_init__)
    renamed = set(re.findall(r'kwargs\.pop\("(mamba_\w+)"\)', source))
    assert len(renamed) == 9
    attributes = set(NemotronHConfig.attribute_map)
    assert set(ALIASES) == renamed - without_effect | attributes


def test_a_fault_names_the_field_as_the_file_spells_it() -> None:
    raw = {k: v for k, v in NANO_9B.items() if k != "conv_kernel"} | {"mamba_d_conv": 1}
    with pytest.raises(ConfigError, match="mamba_d_conv must be at least 2"):
        parse_model_config(raw)


@pytest.mark.parametrize("model", [reference.nemotron_h(), reference.qwen3()])
def test_what_transformers_writes_is_read(model: Any, tmp_path: Path) -> None:
    """transformers 5 adds MoE keys to dense models and spells infinity its own way."""
    reference.save(model, tmp_path)
    config = read_model_config(tmp_path)
    assert config.vocab_size == model.config.vocab_size
    assert config.hidden_size == model.config.hidden_size
    if config.mamba is not None:
        assert config.mamba.time_step_limit == (0.0, math.inf)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ([0.0, {"__float__": "Infinity"}], (0.0, math.inf)),
        ([0, "inf"], (0.0, math.inf)),
        (None, (0.0, math.inf)),
        ([0.001, 0.1], (0.001, 0.1)),
    ],
)
def test_time_step_limit_spellings(limit: Any, expected: tuple[float, float]) -> None:
    config = parse_model_config(NANO_9B | {"time_step_limit": limit})
    assert config.mamba is not None
    assert config.mamba.time_step_limit == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "'llama' is not supported; known: nemotron_h, qwen3"),
        ({"model_type": None}, "model_type is missing"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "4480"}, "hidden_size must be a positive integer"),
        ({"hidden_size": 0}, "hidden_size must be a positive integer"),
        ({"hidden_size": True}, "hidden_size must be a positive integer"),
        ({"hybrid_override_pattern": None}, r"hybrid_override_pattern \(or layers_block_type\)"),
        (
            {"hybrid_override_pattern": "M-E*", "num_hidden_layers": 4},
            "n_routed_experts is missing",
        ),
        ({"hybrid_override_pattern": "M-X"}, "'X' at position 2"),
        ({"hybrid_override_pattern": ""}, "at least one layer"),
        ({"hybrid_override_pattern": ["mlp", "moe", "E"]}, "'E' at position 2; known: mamba"),
        ({"num_hidden_layers": 55}, "disagrees"),
        ({"n_groups": 7}, r"n_groups \(7\) must divide"),
        ({"num_key_value_heads": 7}, "must divide 40 heads"),
        ({"mamba_num_heads": None}, "mamba_num_heads is missing"),
        ({"conv_kernel": 1}, "conv_kernel must be at least 2"),
        ({"mlp_hidden_act": "silu"}, "mlp_hidden_act must be 'relu2'"),
        ({"attention_bias": True}, "attention_bias must be False"),
        ({"time_step_limit": [0.0]}, r"must be \[low, high\]"),
        ({"time_step_limit": [0.5, 0.1]}, "low < high"),
        ({"time_step_limit": ["x", 1]}, "must hold numbers"),
        ({"layer_norm_epsilon": -1.0}, "must be positive"),
        ({"layer_norm_epsilon": math.nan}, "must be positive and finite"),
        ({"eos_token_id": "12"}, "eos_token_id must be token ids"),
        ({"eos_token_id": True}, "eos_token_id must be token ids"),
        ({"eos_token_id": [12, -1]}, "eos_token_id must be token ids"),
        ({"eos_token_id": [12, 2.0]}, "eos_token_id must be token ids"),
        ({"eos_token_id": [12, 131072]}, "has 131072, which is no token: vocab_size is 131072"),
        ({"tie_word_embeddings": "no"}, "must be true or false"),
    ],
)
def test_refusals_name_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_model_config(NANO_9B | change, "here/config.json")
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith("here/config.json")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_type 'yarn'"),
        ({"use_sliding_window": True}, "use_sliding_window must be False"),
        ({"rope_theta": 0}, "rope_theta must be positive"),
    ],
)
def test_qwen3_refusals(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_model_config(QWEN3_8B | change)


def test_rope_theta_in_either_place() -> None:
    moved = {k: v for k, v in QWEN3_8B.items() if k != "rope_theta"}
    moved["rope_parameters"] = {"rope_theta": 1000000, "rope_type": "default"}
    assert parse_model_config(moved) == parse_model_config(QWEN3_8B)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not JSON"), ("[]", "not a JSON object"), (b"\xff", "not JSON")]
)
def test_broken_files(text: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ArtefactError, match=message):
        read_model_config(tmp_path)
    path.unlink()
    with pytest.raises(ArtefactError, match=r"no config\.json"):
        read_model_config(tmp_path)


def test_the_9b_config_round_trips_through_json(tmp_path: Path) -> None:
    """Infinity as Python's json writes it."""
    (tmp_path / "config.json").write_text(json.dumps(NANO_9B))
    assert read_model_config(tmp_path) == parse_model_config(NANO_9B)
