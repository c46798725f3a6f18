"""One quantized linear of each layout as the float32 weight [out, in] that it stands for.

Sources: ModelOpt 0.47 (export/quant_utils.py: pack_int4_in_uint8, NVFP4QTensor),
compressed-tensors 0.20 (compressors), transformers 5.24 (integrations/finegrained_fp8.py).
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from nemotrt.engines.checkpoint.codes.packed import (
    PackedRef,
    num_words,
    packed_ref,
    paired_ref,
    unpack,
)
from nemotrt.engines.checkpoint.quantized.decoded import (
    DecodedRef,
    Floats,
    Rows,
    Scaled,
    decoded,
    fp4_rows,
    plain_rows,
    rows_of,
)
from nemotrt.engines.checkpoint.quantized.gptq_awq import awq, gptq
from nemotrt.engines.checkpoint.quantized.leaves import FLOAT_TYPES, Leaves, grid, group_of
from nemotrt.engines.checkpoint.quantized.scheme import Layout, Scheme
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.model.numerics import NumberFormat

CODE_LEAVES = ("weight", "weight_packed", "qweight")  # that hold a linear's codes


def decoded_linear(
    module: str, leaves: Mapping[str, TensorRef], layout: Layout, scheme: Scheme
) -> DecodedRef:
    """Return the weight of a module whose stored tensors are `leaves`, by their last names.

    Raises:
        ArtefactError: a tensor is missing, or of another type or shape than the layout has.
    """
    tensors = Leaves(module, leaves)
    decode = _DECODERS[layout](tensors, scheme)
    stored = tuple(leaves[leaf] for leaf in sorted(leaves) if leaf != "bias")
    return decoded(f"{module}.weight", decode.shape, stored, decode)


def _modelopt(tensors: Leaves, scheme: Scheme) -> Scaled:
    code, columns = scheme.precision.weights.format, None
    ref: TensorRef
    if tensors.has("pre_quant_scale"):
        columns = tensors.take("pre_quant_scale", FLOAT_TYPES).map().astype(np.float32)
    if code is NumberFormat.FP4:
        ref = tensors.matrix("weight", ("U8",))
        shape = ref.shape[0], 2 * ref.shape[1]
        groups = grid(tensors, "weight_scale", ("F8_E4M3",), shape)
        factor = tensors.one("weight_scale_2")
        return Scaled(
            shape, partial(fp4_rows, ref), lambda part: groups(part) * factor, columns=columns
        )
    if code is NumberFormat.INT4:
        ref = paired_ref(tensors.matrix("weight", ("U8",)))
    else:
        ref = tensors.matrix("weight", (code.safetensors,))
    shape = ref.shape[0], ref.shape[1]
    scales = grid(tensors, "weight_scale", FLOAT_TYPES, shape)
    return Scaled(shape, partial(plain_rows, ref), scales, columns=columns)


def _compressed(tensors: Leaves, scheme: Scheme) -> Scaled:
    bits = scheme.num_bits
    ref: TensorRef
    if scheme.precision.weights.format is NumberFormat.FP4:
        ref = tensors.matrix("weight_packed", ("U8",))
        shape = ref.shape[0], 2 * ref.shape[1]
        groups = grid(tensors, "weight_scale", ("F8_E4M3",), shape)
        factor = np.float32(1) / tensors.one("weight_global_scale")
        return Scaled(shape, partial(fp4_rows, ref), lambda part: groups(part) * factor)
    if tensors.has("weight_packed"):
        ref = packed_codes(tensors, (bits,))
    else:
        ref = tensors.matrix("weight", ("I8", "F8_E4M3"))
    shape = ref.shape[0], ref.shape[1]
    scales = grid(tensors, "weight_scale", FLOAT_TYPES, shape)
    zeros, order = None, None
    if tensors.has("weight_zero_point"):
        zeros = _zero_points(tensors, bits, shape[0])
    if tensors.has("weight_g_idx"):
        count = tensors.take("weight_scale", FLOAT_TYPES).shape[-1]
        order = group_of(tensors, "weight_g_idx", shape[1], count)
    elif scheme.is_ordered:
        tensors.take("weight_g_idx", ())  # names it as missing
    return Scaled(shape, partial(plain_rows, ref), scales, zeros, order)


def packed_codes(tensors: Leaves, widths: tuple[int, ...]) -> PackedRef:
    """Return the codes [out, in] of packed int32, of the width that fits weight_shape.

    Raises:
        ArtefactError: a tensor is missing, or none of the widths fits.
    """
    words = tensors.matrix("weight_packed", ("I32",))
    told = tensors.shaped("weight_shape", ("I64", "I32"), (2,)).map().tolist()
    for bits in widths:
        if words.shape == (told[0], num_words(told[1], bits)):
            return packed_ref(words, bits, told[1])
    wanted = " or ".join(map(str, widths))
    raise tensors.fault(words, f"codes of {wanted} bits of weight_shape {told}")


def _zero_points(tensors: Leaves, bits: int, num_rows: int) -> Rows:
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
        codes = unpack(packed, bits, per_word * packed.shape[1]).T
        return codes[part.start - first * per_word :][: part.stop - part.start].astype(np.float32)

    return rows


def _block_fp8(tensors: Leaves, scheme: Scheme) -> Scaled:
    del scheme
    ref = tensors.matrix("weight", ("F8_E4M3",))
    shape = ref.shape[0], ref.shape[1]
    leaf = "weight_scale_inv" if tensors.has("weight_scale_inv") else "weight_scale"
    return Scaled(shape, partial(plain_rows, ref), grid(tensors, leaf, FLOAT_TYPES, shape))


_DECODERS = {
    Layout.MODELOPT: _modelopt,
    Layout.COMPRESSED_TENSORS: _compressed,
    Layout.GPTQ: gptq,
    Layout.AWQ: awq,
    Layout.FP8: _block_fp8,
    Layout.FBGEMM_FP8: _block_fp8,
}
