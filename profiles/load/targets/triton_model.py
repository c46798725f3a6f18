"""What a Triton model takes, by its metadata: only inputs that it declares are sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.profiles.load.prompts import Prompt

# Inputs of NVIDIA's frontends that make the answer exactly as long as asked, and the last two ours
# or vLLM's. Source: tensorrtllm_backend, all_models/inflight_batcher_llm/ensemble/config.pbtxt.
EXACT = {
    "temperature": 0.0,
    "exclude_input_in_output": True,
    "return_num_input_tokens": True,
    "return_num_output_tokens": True,
    "return_progress": True,
    "ignore_eos": True,
}
NUMPY_TYPES = {"BYTES": np.object_, "BOOL": np.bool_, "FP32": np.float32, "FP64": np.float64}
NUMPY_TYPES |= {f"INT{bits}": np.dtype(f"int{bits}").type for bits in (8, 16, 32, 64)}
NUMPY_TYPES |= {f"UINT{bits}": np.dtype(f"uint{bits}").type for bits in (8, 16, 32, 64)}


@dataclass(frozen=True, slots=True)
class InputTensor:
    """An input's type in Triton's words, and its number of dimensions with the batch's."""

    datatype: str
    rank: int

    def array(self, value: Any) -> npt.NDArray[Any]:
        """Return `value` as a tensor of one element."""
        element = value.encode() if isinstance(value, str) else value
        return np.array([element], NUMPY_TYPES[self.datatype]).reshape((1,) * self.rank)


@dataclass(frozen=True, slots=True)
class TritonModel:
    """The inputs that a model declares, by name."""

    inputs: Mapping[str, InputTensor]

    def values(self, prompt: Prompt, osl: int, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Return a request's inputs; `extra` is sent in any case, a None in it takes one away."""
        wanted = {"text_input": prompt.text, "max_tokens": osl, "min_tokens": osl, "stream": True}
        wanted |= EXACT
        declared = {name: value for name, value in wanted.items() if name in self.inputs}
        return {name: value for name, value in {**declared, **extra}.items() if value is not None}

    def tensor(self, name: str, value: Any) -> InputTensor:
        """Return an input's declaration; of one that is not declared, what `value` suggests."""
        guesses = {str: "BYTES", bool: "BOOL", float: "FP32"}
        return self.inputs.get(name) or InputTensor(guesses.get(type(value), "INT32"), 1)
