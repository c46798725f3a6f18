"""The formats of numbers, and the precisions of linears made of them: the one table of each.

All other tables of formats derive from these: quantizer, readers, emitters, planner, verdict. A new
way to quantize is a new row. Nothing heavy is imported: `plan` reads this.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np


class Table(StrEnum):
    """Words with columns, which are named by the class's annotations in their order."""

    def __new__(cls, word: str, *columns: Any) -> "Table":
        """Return the row as the word that it is."""
        row = str.__new__(cls, word)
        row._value_ = word
        for name, value in zip(cls.__annotations__, columns, strict=True):
            setattr(row, name, value)
        return row


class NumberFormat(Table):
    """How one number is stored.

    Columns: our word; bits; kind; numpy's or ml_dtypes' word; safetensors' word, empty where the
    numbers are packed into others; number in ONNX; the largest code, 0 where none is ever scaled to
    it. Sources: the safetensors format; onnx.proto, TensorProto.DataType; OCP 8-bit floating point,
    table 2; OCP microscaling formats, table 5.
    """

    num_bits: int
    kind: Literal["float", "int"]  # compressed-tensors' words
    word: str
    safetensors: str
    onnx: int
    largest_code: float

    FP32 = "fp32", 32, "float", "float32", "F32", 1, 0.0
    BF16 = "bf16", 16, "float", "bfloat16", "BF16", 16, 0.0
    FP16 = "fp16", 16, "float", "float16", "F16", 10, 0.0
    INT8 = "int8", 8, "int", "int8", "I8", 3, 127.0
    FP8 = "fp8", 8, "float", "float8_e4m3fn", "F8_E4M3", 17, 448.0
    INT4 = "int4", 4, "int", "int4", "", 22, 7.0
    FP4 = "fp4", 4, "float", "float4_e2m1fn", "", 23, 6.0

    @property
    def is_code(self) -> bool:
        """Whether numbers are stored as codes with a scale; 16 and 32 bit floats are not."""
        return self.largest_code > 0

    @property
    def num_bytes(self) -> int:
        """Bytes of one number; two of int4 share one, so it has no such number."""
        if self.num_bits % 8:
            raise ValueError(f"{self} is no whole number of bytes")
        return self.num_bits // 8

    @property
    def numpy(self) -> "np.dtype[Any]":
        """The type in numpy, of ml_dtypes where numpy has none."""
        import ml_dtypes
        import numpy as np

        return np.dtype(getattr(ml_dtypes, self.word, self.word))


SAFETENSORS = {item.safetensors: item for item in NumberFormat if item.safetensors}
FLOATS = tuple(item for item in NumberFormat if not item.is_code)
FP4_GROUP = 16  # inputs that share a scale of NVFP4
GROUP_SIZES = (32, 64, 128)  # inputs that share a scale of int4, as vLLM and TensorRT-LLM have them
KV_CODES = {item.upper(): item for item in (NumberFormat.FP8, NumberFormat.INT8)}  # ModelOpt's word


class Granularity(StrEnum):
    """Which numbers share a scale, in compressed-tensors' words for those that have one."""

    NONE = "none"
    TENSOR = "tensor"
    CHANNEL = "channel"  # a row of a weight
    GROUP = "group"  # some adjoining inputs of a row
    TOKEN = "token"


@dataclass(frozen=True, slots=True)
class Numbers:
    """The weights of linears, or their inputs: a format, what shares a scale, and when it is found.

    A dynamic scale is computed in each step; a static one comes from a calibration or the weights.
    """

    format: NumberFormat
    granularity: Granularity = Granularity.NONE
    is_dynamic: bool = False

    @property
    def is_quantized(self) -> bool:
        """Whether the numbers are codes with scales."""
        return self.granularity is not Granularity.NONE

    @property
    def scheme(self) -> dict[str, Any] | None:
        """What compressed-tensors says of them; None of floats."""
        if not self.is_quantized:
            return None
        return {
            "num_bits": self.format.num_bits,
            "type": self.format.kind,
            "symmetric": True,
            "strategy": "tensor_group" if self.has_second_scale else self.granularity.value,
            "dynamic": self.is_dynamic,
        }

    @property
    def is_grouped(self) -> bool:
        """Whether some inputs of a row share a scale."""
        return self.granularity is Granularity.GROUP

    @property
    def has_second_scale(self) -> bool:
        """Whether the scales of groups are codes, with one scale of all of them."""
        return self.is_grouped and self.format is NumberFormat.FP4

    @property
    def scale_format(self) -> NumberFormat:
        """The type of stored scales: few bits where there are many."""
        if self.has_second_scale:
            return NumberFormat.FP8
        return NumberFormat.BF16 if self.is_grouped else NumberFormat.FP32

    @property
    def is_per_tensor(self) -> bool:
        """Whether all share one scale."""
        return self.granularity is Granularity.TENSOR


SIXTEEN_BITS = Numbers(NumberFormat.BF16)
INT8_ROWS = Numbers(NumberFormat.INT8, Granularity.CHANNEL)
INT8_TENSOR = Numbers(NumberFormat.INT8, Granularity.TENSOR)
INT8_TOKENS = Numbers(NumberFormat.INT8, Granularity.TOKEN, is_dynamic=True)
FP8_ROWS = Numbers(NumberFormat.FP8, Granularity.CHANNEL)
FP8_TENSOR = Numbers(NumberFormat.FP8, Granularity.TENSOR)
FP8_TOKENS = Numbers(NumberFormat.FP8, Granularity.TOKEN, is_dynamic=True)
INT4_GROUPS = Numbers(NumberFormat.INT4, Granularity.GROUP)
FP4_GROUPS = Numbers(NumberFormat.FP4, Granularity.GROUP)


class Precision(Table):
    """How linears are stored and multiplied; all else stays as the backend documents.

    Columns: the word that users give; weights; inputs, in whose format products are computed;
    ModelOpt's quant_algo, empty for floats.
    """

    weights: Numbers
    inputs: Numbers
    algo: str

    FP32 = "fp32", Numbers(NumberFormat.FP32), Numbers(NumberFormat.FP32), ""
    BF16 = "bf16", SIXTEEN_BITS, SIXTEEN_BITS, ""
    INT8_WO = "int8-wo", INT8_ROWS, SIXTEEN_BITS, "W8A16"
    INT8_SQ = "int8-sq", INT8_ROWS, INT8_TENSOR, "W8A8_SQ_PER_CHANNEL"  # SmoothQuant
    # The name is of TensorRT-LLM's QuantAlgo; ModelOpt's own exporter has no such recipe.
    INT8_DYNAMIC = "int8-dynamic", INT8_ROWS, INT8_TOKENS, "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN"
    FP8 = "fp8", FP8_TENSOR, FP8_TENSOR, "FP8"
    FP8_DYNAMIC = "fp8-dynamic", FP8_ROWS, FP8_TOKENS, "FP8_PER_CHANNEL_PER_TOKEN"
    INT4_WO = "int4-wo", INT4_GROUPS, SIXTEEN_BITS, "W4A16_AWQ"  # as AWQ and GPTQ are stored too
    NVFP4_WO = "nvfp4-wo", FP4_GROUPS, SIXTEEN_BITS, "W4A16_NVFP4"  # written, and read as floats

    @property
    def is_quantized(self) -> bool:
        """Whether weights are stored as codes."""
        return self.weights.is_quantized

    @property
    def is_weight_only(self) -> bool:
        """Whether weights are codes, and inputs are not: kernels widen the weights."""
        return self.is_quantized and not self.inputs.is_quantized

    @property
    def is_smoothed(self) -> bool:
        """Whether SmoothQuant moves factors from inputs to weights."""
        return self is Precision.INT8_SQ

    @property
    def has_input_scale(self) -> bool:
        """Whether a calibration gives each linear a scale for its input."""
        return self.inputs.is_quantized and not self.inputs.is_dynamic

    @property
    def arithmetic(self) -> NumberFormat:
        """What products are computed in."""
        return self.inputs.format

    @property
    def floats(self) -> NumberFormat:
        """The format of embeddings, head, norms and what lies between the operators."""
        return NumberFormat.BF16 if self.is_quantized else self.weights.format


# What engines are built in, and a checkpoint may be quantized to for one.
BUILT = tuple(item for item in Precision if item is not Precision.NVFP4_WO)
# Of which a plan chooses by itself: fewer bits are chosen by people, who know what they lose.
CHOSEN = tuple(item for item in BUILT if item.weights.format.num_bits >= 8)
QUANTIZED = {item.algo: item for item in Precision if item.is_quantized}  # by ModelOpt's word
