"""Which attention layers see a window of the last tokens alone, by a config.json."""

from dataclasses import dataclass
from typing import Any

from nemotrt.errors import ConfigError

# What a file that leaves the key out means; a null is no window.
# Source: transformers 5.24, the configuration classes of these types.
WINDOW_OF_TYPE = dict.fromkeys(
    ("gemma2", "gemma3_text", "cohere2", "olmo3", "exaone4", "ministral", "mistral"), 4096
)
# One layer of so many sees all tokens, the last of them. Source: the same classes.
PATTERN_OF_TYPE = {"gemma2": 2, "gemma3_text": 6, "cohere2": 4, "olmo3": 4, "exaone4": 4}
PATTERN_FIELD = "sliding_window_pattern"
WHOLE_TYPES = ("mistral", "ministral", "phi3", "starcoder2")  # every layer has the window
# Layers from `max_window_layers` on, where `use_sliding_window` says so.
LATE_TYPES = ("qwen2", "qwen3")
MAX_WINDOW_LAYERS = 28
SLIDING = "sliding_attention"


@dataclass(frozen=True, slots=True)
class Windows:
    """Attention layers that see the last `tokens` tokens alone: `num_layers` of `of_layers`."""

    tokens: int
    num_layers: int
    of_layers: int

    @property
    def share(self) -> float:
        """The share of the attention layers that have the window."""
        return self.num_layers / self.of_layers


def windows_of(raw: dict[str, Any], num_layers: int, source: str) -> Windows | None:
    """Return the windows of a config dictionary of so many attention layers; None without any.

    Raises:
        ConfigError: a window is no size, or its layers are not told.
    """
    model_type = raw.get("model_type")
    tokens = raw.get("sliding_window", WINDOW_OF_TYPE.get(str(model_type)))
    has_switch = model_type in (*LATE_TYPES, "smollm3")
    if tokens is None or (has_switch and not raw.get("use_sliding_window", False)):
        return None
    layers = _layers(raw, str(model_type), num_layers, source)
    if not layers:
        return None
    if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 1:
        raise ConfigError(f"{source}: sliding_window must be a number of tokens, got {tokens!r}.")
    return Windows(tokens, layers, num_layers)


def _layers(raw: dict[str, Any], model_type: str, num_layers: int, source: str) -> int:
    """Return how many layers have the window."""
    if told := raw.get("layer_types"):
        return list(told).count(SLIDING)
    if model_type in WHOLE_TYPES:
        return num_layers
    if model_type in LATE_TYPES:
        first = raw.get("max_window_layers", MAX_WINDOW_LAYERS)
        return max(num_layers - int(first), 0)
    if model_type == "smollm3":
        raise ConfigError(f"{source}: use_sliding_window needs layer_types, which it lacks.")
    if model_type not in PATTERN_OF_TYPE:
        return 0
    pattern = raw.get(PATTERN_FIELD) or PATTERN_OF_TYPE[model_type]
    period = len(pattern) if isinstance(pattern, str) else int(pattern)
    return num_layers - num_layers // period
