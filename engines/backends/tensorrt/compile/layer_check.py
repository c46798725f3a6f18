"""What a layer report says of the parts that matter: attention, caches, SSM states, linears."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nemotrt.engines.backends.tensorrt.compile.layer_report import INT4, Layer, LayerReport, Tensor
from nemotrt.engines.checkpoint.codes.packed import INT4_WORD
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import SAFETENSORS, NumberFormat, Precision
from nemotrt.engines.model.tensor_names import linear_names, model_names

LAYERS_FILE = "layers.json"
UNREADABLE = "this version of TensorRT words its layers in another way: nothing was checked"
DECODE = 0
PROFILES = {DECODE: "decode", 1: "prefill"}
COUNTED = ("fused attention kernels", "KV cache updates in place", "SSM states in float32")
SIXTEEN_BIT = ("BFloat16", "Half")
NUMBERS = {
    INT4: "int4",
    "Int8": "int8",
    "FP8": "fp8",
    "BFloat16": "bf16",
    "Half": "fp16",
    "Float": "fp32",
}
FUSED_ATTENTION = "_mha_v"  # Source: kernel names of tensorrt-rtx 1.7: _gemv_mha_v1, _gemm_mha_v2


@dataclass(frozen=True, slots=True)
class LinearKernel:
    """How one linear runs: types of activation and weight, and whether the weight is copied."""

    profile: str
    linear: str
    activation: str
    weight: str
    is_gemm: bool  # a library GEMM; else a kernel that was fused with what stands around it
    is_weight_copied: bool  # another kernel rewrites the weight in each call

    @property
    def how(self) -> str:
        """In words: "int8 x int8 gemm", "bf16 x int8 fused"."""
        kind = "gemm" if self.is_gemm else "fused"
        copied = ", weight copied first" if self.is_weight_copied else ""
        return f"{self.activation} x {self.weight} {kind}{copied}"


@dataclass(frozen=True, slots=True)
class LayerCheck:
    """The findings; `faults` is empty where the plan is as it should be."""

    num_kernels: dict[str, int]
    fused_attention: dict[str, int]
    cache_updates: dict[str, int]
    float32_states: dict[str, int]  # SSM states that are read and written in float32
    linears: tuple[LinearKernel, ...]
    faults: tuple[str, ...]

    def counts(self, profile: str) -> dict[str, int]:
        """Return how many linears of a profile run in each way."""
        return dict(Counter(item.how for item in self.linears if item.profile == profile))


def check_layers(
    report: LayerReport,
    config: ModelConfig,
    dtypes: dict[str, str] | None = None,
    precision: Precision | None = None,
) -> LayerCheck:
    """Return what the report says.

    Args:
        report: of a plan.
        config: the model that the plan runs.
        dtypes: weight -> how it is stored in the graph (safetensors' words); given, a linear whose
            kernel reads its weight as another type, or reads a copy of it, is a fault.
        precision: of the plan; given, activations of another type are a fault too.
    """
    if not report.layers:
        nothing = dict.fromkeys(PROFILES.values(), 0)
        return LayerCheck(nothing, nothing, nothing, nothing, (), (UNREADABLE,))
    faults: list[str] = []
    counts: dict[str, dict[str, int]] = {name: {} for name in COUNTED}
    linears, kernels = [], {}
    for profile, word in PROFILES.items():
        layers = report.kernels(profile)
        kernels[word] = len(layers)
        for what, (count, expected) in _counts(layers, config).items():
            counts[what][word] = count
            if count != expected:
                faults.append(f"{word}: {count} of {expected} {what}")
        if profile == DECODE:
            faults += [f"{word}: {name} is copied" for name in _copied_states(layers)]
        for weight in [*linear_names(config), model_names(config).lm_head]:
            kernel = _linear(layers, weight, word)
            if kernel is None:
                faults.append(f"{word}: no kernel reads {weight}")
                continue
            linears.append(kernel)
            if not _is_as_stored(kernel, (dtypes or {}).get(weight), precision):
                faults.append(f"{word}: {kernel.linear} runs as {kernel.how}")
    attention, updates, states = (counts[name] for name in COUNTED)
    return LayerCheck(kernels, attention, updates, states, tuple(linears), tuple(faults))


def _counts(layers: Sequence[Layer], config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Return what is counted -> (how often it was found, how often it should be)."""
    found = (
        sum(is_fused_attention(layer) for layer in layers),
        _num_cache_updates(layers),
        _num_float32_states(layers),
    )
    num_attention = config.num_attention_layers
    expected = (num_attention, 2 * num_attention, config.num_mamba_layers)
    return dict(zip(COUNTED, zip(found, expected, strict=True), strict=True))


def is_fused_attention(layer: Layer) -> bool:
    """Whether the layer is one kernel for a whole attention, in 16 bits."""
    return FUSED_ATTENTION in layer.name and layer.inputs[0].dtype in SIXTEEN_BIT


def _num_cache_updates(layers: Sequence[Layer]) -> int:
    """Count the caches that a kernel writes in place."""
    return sum(
        output.name.startswith(("k_cache_out_", "v_cache_out_"))
        and any(item.name == output.name for item in layer.inputs)
        for layer in layers
        for output in layer.outputs
    )


def _num_float32_states(layers: Sequence[Layer]) -> int:
    """Count the SSM states whose input and output are float32 wherever a kernel has them."""
    kinds: dict[str, set[str]] = {}
    for layer in layers:
        for tensor in (*layer.inputs, *layer.outputs):
            if tensor.name.startswith("ssm_"):
                kinds.setdefault(tensor.name, set()).add(tensor.dtype)
    return sum(
        kinds[name] == kinds.get(name.replace("ssm_", "ssm_out_")) == {"Float"}
        for name in kinds
        if not name.startswith("ssm_out_")
    )


def _copied_states(layers: Sequence[Layer]) -> list[str]:
    """Return the SSM states that a kernel reads only to write something as large beside them."""
    copied = []
    for layer in layers:
        states = [tensor for tensor in layer.inputs if tensor.name.startswith("ssm_")]
        sizes = {row_size(tensor) for tensor in states}
        others = [x for x in layer.outputs if not x.name.startswith("ssm_out_")]
        if states and any(row_size(tensor) in sizes for tensor in others):
            copied.append(states[0].name)
    return copied


def row_size(tensor: Tensor) -> int:
    """Return the elements of one sequence's part of a tensor, whose first axis is the batch."""
    return math.prod(int(size) for size in tensor.shape.split(",")[1:] if size)


def _linear(layers: Sequence[Layer], weight: str, profile: str) -> LinearKernel | None:
    """Return the kernel that multiplies by `weight`."""
    module = weight.removesuffix(".weight")
    readers = [x for x in layers if any(tensor.name == weight for tensor in x.inputs)]
    kernels = [x for x in layers if module in x.nodes and x.kind in ("gemm", "runtime_fusion")]
    if not kernels:
        return None
    kernel = kernels[0]
    operand = next((x for x in kernel.inputs if x.name == weight), None)
    is_copied = bool(readers) and operand is None
    others = [x for x in kernel.inputs if x is not operand]
    if operand is None:  # a constant, whose name goes on after ours
        constants = [x for x in kernel.weights if x.name.startswith(weight) or x.dtype == INT4]
        operand = next(iter(constants), None)
    if operand is None:  # a copy, or merged: under the compiler's own name; it comes last
        operand, others = kernel.inputs[-1], list(kernel.inputs[:-1])
    activation = next((x for x in reversed(others) if x.dtype in NUMBERS), operand)
    return LinearKernel(
        profile=profile,
        linear=module,
        activation=NUMBERS.get(activation.dtype, activation.dtype),
        weight=NUMBERS.get(operand.dtype, operand.dtype),
        is_gemm=kernel.kind == "gemm",
        is_weight_copied=is_copied,
    )


def _is_as_stored(kernel: LinearKernel, stored: str | None, precision: Precision | None) -> bool:
    """Whether a linear reads its weight as the graph stores it, and its input as it should."""
    is_int4 = stored == INT4_WORD
    expected = NumberFormat.INT4 if is_int4 else SAFETENSORS.get(stored or "")
    if expected is None:
        return True
    bf16 = NumberFormat.BF16
    inputs = bf16 if precision is None or expected is bf16 else precision.inputs.format
    is_activation = precision is None or kernel.activation == inputs
    return kernel.weight == expected and not kernel.is_weight_copied and is_activation
