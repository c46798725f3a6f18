"""Hugging Face transformers, eager, with its own cache."""

from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM


class TransformersRunner:
    """The reference model; float32 is the fastest it has on a CPU without bfloat16 arithmetic."""

    def __init__(self, spec: dict[str, Any]) -> None:
        """Load the checkpoint `spec["path"]`."""
        torch.set_num_threads(spec["threads"])
        dtype = getattr(torch, spec["weights"])
        self._model = AutoModelForCausalLM.from_pretrained(spec["path"], dtype=dtype).eval()
        for module in self._model.modules():
            if hasattr(module, "time_step_limit"):
                # its chunk scan clamps dt; its decode step, the released code and we do not
                module.time_step_limit = (0.0, float("inf"))
        self._cache: Any = None

    def begin(self, batch: int) -> None:
        """Forget the cache."""
        self._cache = None

    def feed(self, tokens: np.ndarray) -> None:
        """Run one forward pass with the logits of the last token."""
        with torch.inference_mode():
            out = self._model(
                torch.from_numpy(tokens),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache = out.past_key_values

    def all_logits(self, tokens: np.ndarray) -> np.ndarray:
        """Run one forward pass without a cache."""
        with torch.inference_mode():
            logits = self._model(torch.from_numpy(tokens), use_cache=False).logits[0]
        return logits.float().numpy()
