"""One quantized linear of each layout as the float32 weight [out, in] that it stands for.

Sources: ModelOpt 0.47 (export/quant_utils.py: pack_int4_in_uint8, NVFP4QTensor),
compressed-tensors 0.20 (compressors), AutoGPTQ and GPTQModel (qlinear.pack), AutoAWQ
(utils/packing_utils.py), GPTQModel 7.7 (convert_gptq_v1_to_v2_format), transformers 5.24
(integrations/finegrained_fp8.py).
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from nemotrt.engines.checkpoint.quantized.decoded import (
    DecodedRef,
    Floats,
    Rows,
    Scaled,
    decoded,
    fp4_rows,
    offset_binary_rows,
    plain_rows,
    rows_of,
    words,
)
from nemotrt.engines.checkpoint.quantized.scheme import Layout, Scheme
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.errors import ArtefactError

CODE_LEAVES = ("weight", "weight_packed", "qweight")  # that hold a linear's codes
# AutoAWQ's place of the eight outputs in a word: output i is in nibble AWQ_ORDER[i].
AWQ_ORDER = np.array([0, 4, 1, 5, 2, 6, 3, 7])
FLOAT_TYPES = ("F32", "F16", "BF16")

Leaves = Mapping[str, TensorRef]


def decoded_linear(module: str, leaves: Leaves, layout: Layout, scheme: Scheme) -> DecodedRef:
    """Return the weight of a module whose stored tensors are `leaves`, by their last names.

    Raises:
        ArtefactError: a tensor is missing, or of another type or shape than the layout has.
    """
    tensors = _Leaves(module, leaves)
    decode = _DECODERS[layout](tensors, scheme)
    stored = tuple(leaves[leaf] for leaf in sorted(leaves) if leaf != "bias")
    return decoded(f"{module}.weight", decode.shape, stored, decode)


class _Leaves:
    """The tensors of one module, each checked as it is asked for."""

    def __init__(self, module: str, leaves: Leaves) -> None:
        self.module, self._leaves = module, leaves

    def has(self, leaf: str) -> bool:
        return leaf in self._leaves

    def take(self, leaf: str, dtypes: tuple[str, ...]) -> TensorRef:
        """Return a tensor that must be there, of one of the types."""
        ref = self._leaves.get(leaf)
        if ref is None:
            raise ArtefactError(f"tensor {self.module}.{leaf} is missing: its codes need it.")
        if ref.dtype not in dtypes:
            raise self.fault(ref, f"of type {' or '.join(dtypes)}")
        return ref

    def matrix(self, leaf: str, dtypes: tuple[str, ...]) -> TensorRef:
        """Return a tensor of two axes."""
        ref = self.take(leaf, dtypes)
        if len(ref.shape) != 2:
            raise self.fault(ref, "a matrix")
        return ref

    def shaped(self, leaf: str, dtypes: tuple[str, ...], shape: tuple[int, ...]) -> TensorRef:
        """Return a tensor of that shape."""
        ref = self.take(leaf, dtypes)
        if ref.shape != shape:
            raise self.fault(ref, f"of shape {list(shape)}")
        return ref

    def one(self, leaf: str) -> np.float32:
        """Return the value of a tensor of one float."""
        ref = self.take(leaf, FLOAT_TYPES)
        if int(np.prod(ref.shape)) != 1:
            raise self.fault(ref, "one value")
        value = np.float32(ref.map().reshape(-1)[0])
        if not (np.isfinite(value) and value > 0):
            raise self.fault(ref, f"positive and finite, got {value}")
        return value

    def fault(self, ref: TensorRef, wanted: str) -> ArtefactError:
        """Return the error for a tensor that is not what it must be."""
        return ArtefactError(
            f"{ref.path}: {ref.name} is {ref.dtype} {list(ref.shape)}, it must be {wanted}."
        )


def _grid(tensors: _Leaves, leaf: str, dtypes: tuple[str, ...], scaled: tuple[int, int]) -> Rows:
    """Return the scales of a weight [out, in]: one, one a row, of groups, or of blocks."""
    ref, (rows, columns) = tensors.take(leaf, dtypes), scaled
    shape = tuple(n for n in ref.shape if n != 1) if len(ref.shape) > 2 else ref.shape
    if int(np.prod(shape)) == 1:
        return rows_of(ref, 0)
    if len(shape) == 1:
        shape = (*shape, 1)
    if len(shape) != 2 or not (0 < shape[0] <= rows and 0 < shape[1] <= columns):
        raise tensors.fault(ref, f"scales of {rows} rows and {columns} inputs")
    if shape[0] == rows:
        return rows_of(ref)
    size = -(-columns // shape[1])  # blocks are square
    if -(-rows // size) != shape[0]:
        raise tensors.fault(ref, f"scales of blocks of {size} rows and inputs")
    return rows_of(ref, size)


def _modelopt(tensors: _Leaves, scheme: Scheme) -> Scaled:
    code = scheme.precision.weights.format
    columns = None
    if tensors.has("pre_quant_scale"):
        columns = tensors.take("pre_quant_scale", FLOAT_TYPES).map().astype(np.float32)
    codes: Rows
    if code is NumberFormat.FP4:
        ref = tensors.matrix("weight", ("U8",))
        shape = ref.shape[0], 2 * ref.shape[1]
        groups = _grid(tensors, "weight_scale", ("F8_E4M3",), shape)
        factor = tensors.one("weight_scale_2")
        return Scaled(
            shape, partial(fp4_rows, ref), lambda part: groups(part) * factor, columns=columns
        )
    if code is NumberFormat.INT4:
        ref = tensors.matrix("weight", ("U8",))
        shape, codes = (2 * ref.shape[0], ref.shape[1]), partial(_paired_rows, ref)
    else:
        ref = tensors.matrix("weight", (code.safetensors,))
        shape, codes = (ref.shape[0], ref.shape[1]), partial(plain_rows, ref)
    scales = _grid(tensors, "weight_scale", FLOAT_TYPES, shape)
    return Scaled(shape, codes, scales, columns=columns)


def _paired_rows(ref: TensorRef, part: slice) -> Floats:
    """Return rows of signed codes, of which a byte has two outputs, the even one lowest."""
    first = part.start // 2
    raw = np.asarray(ref.map()[first : -(-part.stop // 2)])
    both = np.stack([raw & 15, raw >> 4], axis=1).reshape(-1, raw.shape[1]).view(np.int8)
    signed = both - ((both & 8) << 1)
    return signed[part.start - 2 * first :][: part.stop - part.start].astype(np.float32)


def _compressed(tensors: _Leaves, scheme: Scheme) -> Scaled:
    bits = scheme.num_bits
    if scheme.precision.weights.format is NumberFormat.FP4:
        ref = tensors.matrix("weight_packed", ("U8",))
        shape = ref.shape[0], 2 * ref.shape[1]
        groups = _grid(tensors, "weight_scale", ("F8_E4M3",), shape)
        factor = np.float32(1) / tensors.one("weight_global_scale")
        return Scaled(shape, partial(fp4_rows, ref), lambda part: groups(part) * factor)
    codes: Rows
    if tensors.has("weight_packed"):
        ref = tensors.matrix("weight_packed", ("I32",))
        told = tensors.shaped("weight_shape", ("I64", "I32"), (2,)).map().tolist()
        shape = int(told[0]), int(told[1])
        if ref.shape != (shape[0], -(-shape[1] * bits // 32)):
            raise tensors.fault(ref, f"codes of {bits} bits of weight_shape {told}")
        codes = partial(offset_binary_rows, ref, bits, shape[1])
    else:
        ref = tensors.matrix("weight", ("I8", "F8_E4M3"))
        shape, codes = (ref.shape[0], ref.shape[1]), partial(plain_rows, ref)
    scales = _grid(tensors, "weight_scale", FLOAT_TYPES, shape)
    zeros, group_of = None, None
    if tensors.has("weight_zero_point"):
        zeros = _zero_points(tensors, bits, shape[0])
    if tensors.has("weight_g_idx"):
        count = tensors.take("weight_scale", FLOAT_TYPES).shape[-1]
        group_of = _group_of(tensors, "weight_g_idx", shape[1], count)
    return Scaled(shape, codes, scales, zeros, group_of)


def _zero_points(tensors: _Leaves, bits: int, num_rows: int) -> Rows:
    """Return zero points [rows, groups]: plain, or rows packed into words."""
    ref = tensors.matrix("weight_zero_point", ("I8", "F8_E4M3", "I32"))
    if ref.dtype != "I32":
        return rows_of(ref, 0 if ref.shape[0] == 1 else 1)
    if ref.shape[0] != -(-num_rows * bits // 32):
        raise tensors.fault(ref, f"zero points of {num_rows} rows")

    def rows(part: slice) -> Floats:
        per_word = 32 // bits
        first = part.start // per_word
        packed = np.asarray(ref.map()[first : -(-part.stop // per_word)]).T
        codes = words(packed, bits).T[part.start - first * per_word :][: part.stop - part.start]
        return codes.astype(np.float32) - np.float32(1 << (bits - 1))

    return rows


def _group_of(tensors: _Leaves, leaf: str, width: int, count: int) -> np.ndarray | None:  # type: ignore[type-arg]
    """Return the group of each input; None where they are equal and in order."""
    ref = tensors.shaped(leaf, ("I32", "I64"), (width,))
    found = ref.map().astype(np.int64)
    if (found < 0).any():  # compressed-tensors: -1 stands for no order
        return None
    if found.size and int(found.max()) >= count:
        raise tensors.fault(ref, f"groups below {count}, got {int(found.max())}")
    size = -(-width // count)
    return None if np.array_equal(found, np.arange(width) // size) else found


def _gptq(tensors: _Leaves, scheme: Scheme) -> Scaled:
    """Words of inputs: qweight [in/8, out], scales [groups, out], qzeros [groups, out/8]."""
    bits, per_word = scheme.num_bits, 32 // scheme.num_bits
    ref = tensors.matrix("qweight", ("I32",))
    shape = ref.shape[1], ref.shape[0] * per_word
    scales = tensors.matrix("scales", FLOAT_TYPES)
    count = scales.shape[0]
    tensors.shaped("scales", FLOAT_TYPES, (count, shape[0]))
    zeros = tensors.shaped("qzeros", ("I32",), (count, -(-shape[0] // per_word)))
    group_of = _group_of(tensors, "g_idx", shape[1], count) if tensors.has("g_idx") else None

    def codes(part: slice) -> Floats:
        return words(np.asarray(ref.map()[:, part]).T, bits).astype(np.float32)

    # The first format stores each zero point less one, in words from which 1 a code was taken.
    ones = np.uint32(scheme.zero_offset * sum(1 << shift for shift in range(0, 32, bits)))

    def zero_rows(part: slice) -> Floats:
        found = words(zeros.map().view(np.uint32) + ones, bits)
        return found[:, part].T.astype(np.float32)

    return Scaled(shape, codes, _transposed(scales), zero_rows, group_of)


def _awq(tensors: _Leaves, scheme: Scheme) -> Scaled:
    """Words of outputs: qweight [in, out/8], scales [groups, out], qzeros [groups, out/8]."""
    del scheme
    ref = tensors.matrix("qweight", ("I32",))
    shape = 8 * ref.shape[1], ref.shape[0]
    scales = tensors.matrix("scales", FLOAT_TYPES)
    count = scales.shape[0]
    tensors.shaped("scales", FLOAT_TYPES, (count, shape[0]))
    zeros = None
    if tensors.has("qzeros"):
        zeros = _awq_rows(tensors.shaped("qzeros", ("I32",), (count, ref.shape[1])))
    return Scaled(shape, _awq_rows(ref), _transposed(scales), zeros)


def _awq_rows(ref: TensorRef) -> Rows:
    def rows(part: slice) -> Floats:
        first, last = part.start // 8, -(-part.stop // 8)
        packed = np.asarray(ref.map()[:, first:last])
        codes = words(packed, 4).reshape(packed.shape[0], -1, 8)[:, :, AWQ_ORDER]
        outputs = codes.reshape(packed.shape[0], -1).T
        return outputs[part.start - 8 * first :][: part.stop - part.start].astype(np.float32)

    return rows


def _transposed(ref: TensorRef) -> Rows:
    """Return the rows of a tensor that is stored with its outputs last."""

    def rows(part: slice) -> Floats:
        return np.asarray(ref.map()[:, part]).T.astype(np.float32)

    return rows


def _block_fp8(tensors: _Leaves, scheme: Scheme) -> Scaled:
    del scheme
    ref = tensors.matrix("weight", ("F8_E4M3",))
    shape = ref.shape[0], ref.shape[1]
    leaf = "weight_scale_inv" if tensors.has("weight_scale_inv") else "weight_scale"
    return Scaled(shape, partial(plain_rows, ref), _grid(tensors, leaf, FLOAT_TYPES, shape))


_DECODERS = {
    Layout.MODELOPT: _modelopt,
    Layout.COMPRESSED_TENSORS: _compressed,
    Layout.GPTQ: _gptq,
    Layout.AWQ: _awq,
    Layout.FP8: _block_fp8,
    Layout.FBGEMM_FP8: _block_fp8,
}
