"""The members of the family: what their config.json files say of shapes.

Sources: the models' published configs as several public readers and porting logs repeat them
(`profiles/planning/sources/models` has those that the planner ships); of Super and Ultra the widths
alone are public there, so they are not here.
"""

from typing import Any

from support.sparse_checkpoint import raw_config

NANO_9B = raw_config("nemotron-nano-9b-v2")
NANO_12B = raw_config("nemotron-nano-12b-v2")
# By hub name: each config, and its parameters in billions as its page or paper counts them.
MEMBERS: dict[str, tuple[dict[str, Any], float]] = {
    "nvidia/NVIDIA-Nemotron-Nano-9B-v2": (NANO_9B, 8.888),
    "nvidia/NVIDIA-Nemotron-Nano-9B-v2-Base": (NANO_9B, 8.888),
    "nvidia/NVIDIA-Nemotron-Nano-9B-v2-Japanese": (NANO_9B, 8.888),
    "nvidia/NVIDIA-Nemotron-Nano-12B-v2": (NANO_12B, 12.310),
    "nvidia/NVIDIA-Nemotron-Nano-12B-v2-Base": (NANO_12B, 12.310),
    "nvidia/NVIDIA-Nemotron-Nano-12B-v2-VL-BF16": (
        {
            "model_type": "NemotronH_Nano_VL_V2",
            "architectures": ["NemotronH_Nano_VL_V2"],
            "llm_config": NANO_12B,
            "vision_config": {"model_type": "radio", "hidden_size": 1280},
        },
        12.310,
    ),
    "nvidia/Nemotron-H-8B-Base-8K": (raw_config("nemotron-h-8b"), 8.101),
    "nvidia/NVIDIA-Nemotron-3-Nano-4B-BF16": (raw_config("nemotron-3-nano-4b"), 3.974),
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": (raw_config("nemotron-3-nano-30b-a3b"), 31.578),
}
SHAPES = {  # a member of each shape
    name.partition("/")[2]: raw
    for name, (raw, _) in MEMBERS.items()
    if not name.endswith(("-Base", "-Japanese", "-VL-BF16"))
}
KINDS = {"mamba": "M", "mlp": "-", "attention": "*", "moe": "E"}
OUTSIDE = ("model_type", "num_hidden_layers", "hybrid_override_pattern", "torch_dtype")


def one_of_each(raw: dict[str, Any], **changes: Any) -> tuple[str, dict[str, Any]]:
    """Return a layer of each kind that the model has, and its widths with a small vocabulary."""
    layers = "".join(dict.fromkeys(raw["hybrid_override_pattern"]))
    widths = {key: value for key, value in raw.items() if key not in OUTSIDE}
    return layers, widths | {"vocab_size": 256, **changes}
