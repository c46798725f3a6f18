"""What a layer report says of the parts that matter: attention, KV cache, and every linear."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nemotrt.engines.model_config import ModelConfig
from nemotrt.engines.tensor_names import linear_names, model_names
from nemotrt.engines.tensorrt.layer_report import Layer, LayerReport

LAYERS_FILE = "layers.json"
PROFILES = {0: "decode", 1: "prefill"}
SIXTEEN_BIT = ("BFloat16", "Half")
NUMBERS = {"Int8": "int8", "FP8": "fp8", "BFloat16": "bf16", "Half": "fp16", "Float": "fp32"}
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
    linears: tuple[LinearKernel, ...]
    faults: tuple[str, ...]

    def counts(self, profile: str) -> dict[str, int]:
        """Return how many linears of a profile run in each way."""
        return dict(Counter(item.how for item in self.linears if item.profile == profile))


def check_layers(
    report: LayerReport, config: ModelConfig, dtypes: dict[str, str] | None = None
) -> LayerCheck:
    """Return what the report says.

    Args:
        report: of a plan.
        config: the model that the plan runs.
        dtypes: weight -> how it is stored in the graph (safetensors' words); given, a weight of
            8 bits whose kernel reads another type, or reads a copy, is a fault.
    """
    faults: list[str] = []
    attention, updates, linears, kernels = {}, {}, [], {}
    for profile, word in PROFILES.items():
        layers = report.kernels(profile)
        kernels[word] = len(layers)
        attention[word] = sum(is_fused_attention(layer) for layer in layers)
        updates[word] = _num_cache_updates(layers)
        for what, found in (("fused attention", attention), ("KV cache update", updates)):
            expected = config.num_attention_layers * (2 if found is updates else 1)
            if found[word] != expected:
                faults.append(f"{word}: {found[word]} of {expected} {what} kernels")
        for weight in [*linear_names(config), model_names(config).lm_head]:
            kernel = _linear(layers, weight, word)
            if kernel is None:
                faults.append(f"{word}: no kernel reads {weight}")
                continue
            linears.append(kernel)
            faults += _weight_faults(kernel, (dtypes or {}).get(weight))
    return LayerCheck(kernels, attention, updates, tuple(linears), tuple(faults))


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
    if operand is None:  # a constant, or a copy: the compiler's own name; it comes last
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


def _weight_faults(kernel: LinearKernel, stored: str | None) -> list[str]:
    """Return what is wrong with how a linear's weight is read."""
    expected = {"I8": "int8", "F8_E4M3": "fp8", "BF16": "bf16"}.get(stored or "")
    if expected and (kernel.weight != expected or kernel.is_weight_copied):
        return [f"{kernel.profile}: {kernel.linear} runs as {kernel.how}"]
    return []
