"""Source: 1.2 tensorrt_llm/quantization/{layers,quantize}.py: modules that take others' places."""

import fnmatch
import inspect

import ml_dtypes
import numpy as np

from .layers import Attention, Embedding, Linear, RowLinear
from .module import Parameter


def _scales(module, weight_scale_size, dtype):
    module.activation_scaling_factor = Parameter((1,), "float32")
    module.weights_scaling_factor = Parameter((weight_scale_size,), "float32")
    module.weight = Parameter((module.out_features, module.in_features), dtype)


def _fp8(self, x):
    scale = self.activation_scaling_factor.value.value
    codes = np.clip(x / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    weight = self.weight.value.value.astype(np.float32) * self.weights_scaling_factor.value.value
    return (codes * scale) @ weight.T


def _int8(self, x):
    scale = self.activation_scaling_factor.value.value
    codes = np.clip(np.rint(x * self.prequant_scaling_factor.value.value / scale), -128, 127)
    weight = self.weight.value.value.astype(np.float32)
    return (codes * scale) @ (weight * self.weights_scaling_factor.value.value[:, None]).T


def _weight_only(self, x):
    codes = decode(self.weight.value.value, self.is_hopper).astype(np.float32)
    return x @ (codes * self.per_channel_scale.value.value)


class FP8Linear(Linear):
    def __init__(
        self,
        in_features,
        out_features,
        bias=True,
        dtype=None,
        tp_group=None,
        tp_size=1,
        gather_output=True,
        prefer_managed_weight=True,
        is_qkv=False,
    ):
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(**given)
        _scales(self, 1, "fp8")

    multiply = _fp8


class FP8RowLinear(RowLinear):
    def __init__(
        self,
        in_features,
        out_features,
        bias=True,
        dtype=None,
        tp_group=None,
        tp_size=1,
        prefer_managed_weight=True,
        is_expert=False,
    ):
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(**given)
        _scales(self, 1, "fp8")

    multiply = _fp8


class Int8SmoothQuantLinear(Linear):
    def __init__(
        self,
        in_features,
        out_features,
        bias=True,
        dtype=None,
        tp_group=None,
        tp_size=1,
        gather_output=True,
        prefer_managed_weight=True,
    ):
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(**given)
        _scales(self, self.out_features, "int8")
        self.prequant_scaling_factor = Parameter((self.in_features,), dtype)

    multiply = _int8


class Int8SmoothQuantRowLinear(RowLinear):
    def __init__(
        self,
        in_features,
        out_features,
        bias=True,
        dtype=None,
        tp_group=None,
        tp_size=1,
        prefer_managed_weight=True,
    ):
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(**given)
        _scales(self, self.out_features, "int8")
        self.prequant_scaling_factor = Parameter((self.in_features,), dtype)

    multiply = _int8


class WeightOnlyQuantColumnLinear(Linear):
    def __init__(
        self,
        in_features,
        out_features,
        bias=True,
        dtype=None,
        tp_group=None,
        tp_size=1,
        gather_output=True,
        is_qkv=False,
        prefer_managed_weight=True,
    ):
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(**given)
        self.weight = Parameter((self.in_features, self.out_features), "int8")
        self.per_channel_scale = Parameter((self.out_features,), dtype)

    multiply = _weight_only


class WeightOnlyQuantRowLinear(RowLinear):
    def __init__(
        self,
        in_features,
        out_features,
        bias=True,
        dtype=None,
        tp_group=None,
        tp_size=1,
        prefer_managed_weight=True,
        is_expert=False,
    ):
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(**given)
        self.weight = Parameter((self.in_features, self.out_features), "int8")
        self.per_channel_scale = Parameter((self.out_features,), dtype)

    multiply = _weight_only


MAPS = {
    "FP8": {Linear: FP8Linear, RowLinear: FP8RowLinear},
    "W8A8_SQ_PER_CHANNEL": {Linear: Int8SmoothQuantLinear, RowLinear: Int8SmoothQuantRowLinear},
    "W8A16": {Linear: WeightOnlyQuantColumnLinear, RowLinear: WeightOnlyQuantRowLinear},
}
EXCLUDED = ["*lm_head", "*router", "*vocab_embedding", "*position_embedding", "*block_embedding"]


def quantize(model, quant_config, is_hopper=False):
    """Put quantized linears in the place of others, as quantize_layers does."""
    excluded = quant_config.exclude_modules or EXCLUDED
    kinds = MAPS.get(quant_config.quant_algo, {})
    for name, module, parent in list(model.named_modules_with_parent()):
        if isinstance(module, Attention) and quant_config.kv_cache_quant_algo:
            module.kv_cache_scaling_factor = Parameter((1,), "float32")
            module.kv_cache_rcp_scaling_factor = Parameter((1,), "float32")
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in excluded):
            continue
        if quant_config.quant_algo == "W8A16":
            assert not isinstance(module, Embedding), f"{name} would be quantized"
        kind = next((kinds[cls] for cls in kinds if isinstance(module, cls)), None)
        if kind is None:
            continue
        assert not getattr(module, "pad_ldc", 0), f"{name} loses its padding"
        names = list(inspect.signature(kind.__init__).parameters)[1:]
        given = {n: getattr(module, n) for n in names} | {"bias": module.bias is not None}
        if isinstance(module, Linear):
            given["out_features"] = module.out_features * module.tp_size
        else:
            given["in_features"] = module.in_features * module.tp_size
        quantized = kind(**given)
        quantized.is_hopper = is_hopper
        setattr(parent, name.rsplit(".", 1)[-1], quantized)


def decode(stored, is_hopper):
    """Return int8 codes [in, out] from the mixed GEMM's order, each element by its address.

    Thread t of the tensor core's B operand holds rows 2t, 2t + 1, 2t + 8, 2t + 9 of sixteen.
    """
    num_rows, num_columns = stored.shape
    k, n = np.meshgrid(np.arange(num_rows), np.arange(num_columns), indexing="ij")
    in_16 = k % 16
    row = k - in_16 + 4 * (in_16 % 8 // 2) + in_16 % 2 + 2 * (in_16 // 8)
    if is_hopper:
        address = n * num_rows + row
    else:
        tile, in_tile = row // 64, row % 64
        pair, in_pair = n // 2, n % 2
        address = ((pair * (num_rows // 64) + tile) * 2 + in_pair) * 64 + in_tile
    in_4 = address % 4
    address = address - in_4 + np.array([0, 2, 1, 3])[in_4]
    return stored.reshape(-1).view(np.uint8)[address].astype(np.int16) - 128
