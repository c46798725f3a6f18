"""Every key that a config.json may have: read, refused, or without effect in transformers too."""

import copy
import json
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.errors import ConfigError
from support import reference

# Keys that older or other files have, and values that make another model of those that have no
# number to be changed.
OTHERS: dict[str, list[Any]] = {
    "attention_head_dim": [8],
    "hidden_act": ["gelu"],
    "is_causal": [False],
    "layer_types": [["sliding_attention", "full_attention"]],
    "logit_scale": [2.0],
    "mamba_hidden_act": ["gelu"],
    "mlp_hidden_act": ["gelu"],
    "norm_eps": [0.5],
    "partial_rotary_factor": [0.5],
    "rms_norm_eps": [0.5],
    "rope_parameters": [
        {"rope_type": "default", "rope_theta": 7.0},
        {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
    ],
    "rope_scaling": [
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        {"type": "linear", "factor": 2.0},
    ],
    "rope_theta": [5.0],
    "sliding_window": [4],
    "use_sliding_window": [True],
}
MODELS = [reference.nemotron_h("M-E*", n_group=2), reference.qwen3()]


def changed(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value * 2, value + 1, 1]
    return [value * 3 + 0.01] if isinstance(value, float) else [4] if value is None else []


def their_logits(model: Any, raw: dict[str, Any]) -> torch.Tensor | None:
    """Return what transformers computes of the model's weights by `raw`; None: it refuses it."""
    try:
        config = type(model.config).from_dict(raw)
        config._experts_implementation = "eager"
        other = type(model)(config)
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            found: torch.Tensor = reference.without_clamp(other.eval())(IDS, use_cache=False).logits
    except (StrictDataclassError, TypeError, ValueError, RuntimeError):
        return None
    return found


IDS = torch.arange(12)[None]


@pytest.mark.filterwarnings("ignore:.*rope_scaling. is deprecated:FutureWarning")
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.config.model_type)
def test_what_changes_the_logits_is_never_passed_over(model: Any) -> None:
    raw = json.loads(model.config.to_json_string())
    raw.pop("time_step_limit", None)  # in words of JSON alone, which the class itself does not read
    base, expected, unheeded = parse_model_config(raw), their_logits(model, raw), []
    assert expected is not None
    for key in dict.fromkeys((*raw, *OTHERS)):
        for value in (*changed(raw.get(key)), *OTHERS.get(key, ())):
            told = copy.deepcopy(raw) | {key: value}
            try:
                if parse_model_config(told) != base:
                    continue
            except ConfigError:
                continue
            unheeded.append(key)
            found = their_logits(model, told)
            assert found is None or (found - expected).abs().max() < 1e-5, (key, value)
    assert {"use_cache", "initializer_range", "pad_token_id"} <= set(unheeded)
