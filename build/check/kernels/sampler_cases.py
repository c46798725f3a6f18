"""What samplers are tried with: settings, and logits."""

from typing import Any

import numpy as np
import numpy.typing as npt

REAL = 131_072  # Nemotron-Nano-9B-v2's vocabulary
CARD: dict[str, Any] = {"temperature": 0.6, "top_p": 0.95}  # Source: model card
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "card": CARD,
    "everything": {"temperature": 1.0},
    "top_k": {"temperature": 0.8, "top_k": 50},
    "many of top_k": {"temperature": 1.5, "top_k": 3000},
    "top_k and top_p": {"temperature": 1.2, "top_k": 40, "top_p": 0.7},
    "min_p": {"temperature": 1.0, "min_p": 0.05},
    "all three": {"temperature": 2.0, "min_p": 0.01, "top_k": 200, "top_p": 0.8},
    "narrow": {"temperature": 0.7, "top_p": 0.01},
    "wide": {"temperature": 3.0, "top_p": 0.999},
    "penalties": CARD | {"repetition_penalty": 1.2, "presence_penalty": 0.5},
    "frequency": {"frequency_penalty": 1.5},
    "bias": {"temperature": 1.0, "logit_bias": ((3, 4.5), (7, -100.0))},
    "ends": CARD | {"min_tokens": 5},
}
Logits = npt.NDArray[np.float32]


def likely(random: np.random.Generator, size: int, num_rows: int = 1) -> Logits:
    """Return logits as a language model's: a broad bulk, and some that stand out."""
    rows = random.normal(size=(num_rows, size)) * 2.2
    for row in rows:
        some = random.choice(size, max(1, size // 500), replace=False)
        row[some] += random.exponential(4, some.size)
        row[random.integers(size)] += random.exponential(8)
    return rows.astype(np.float32)
