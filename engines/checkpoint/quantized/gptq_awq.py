"""GPTQ's and AWQ's linears: words of inputs or of outputs, scales and zero points of groups.

Sources: AutoGPTQ 0.7.1 (qlinear_cuda.py), GPTQModel 7.7 (convert_gptq_v1_to_v2_format), AutoAWQ
0.2.9 (utils/packing_utils.py).
"""

import numpy as np

from nemotrt.engines.checkpoint.codes.packed import unsigned
from nemotrt.engines.checkpoint.quantized.decoded import Floats, Rows, Scaled
from nemotrt.engines.checkpoint.quantized.leaves import FLOAT_TYPES, Leaves, group_of
from nemotrt.engines.checkpoint.quantized.scheme import Scheme
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef

# AutoAWQ's place of the eight outputs in a word: output i is in nibble AWQ_ORDER[i].
AWQ_ORDER = np.array([0, 4, 1, 5, 2, 6, 3, 7])


def gptq(tensors: Leaves, scheme: Scheme) -> Scaled:
    """Words of inputs: qweight [in/8, out], scales [groups, out], qzeros [groups, out/8]."""
    bits, per_word = scheme.num_bits, 32 // scheme.num_bits
    ref = tensors.matrix("qweight", ("I32",))
    shape = ref.shape[1], ref.shape[0] * per_word
    scales = tensors.matrix("scales", FLOAT_TYPES)
    count = scales.shape[0]
    tensors.shaped("scales", FLOAT_TYPES, (count, shape[0]))
    zeros = tensors.shaped("qzeros", ("I32",), (count, -(-shape[0] // per_word)))
    is_ordered = tensors.has("g_idx") or scheme.is_ordered
    order = group_of(tensors, "g_idx", shape[1], count) if is_ordered else None

    def codes(part: slice) -> Floats:
        return unsigned(np.asarray(ref.map()[:, part]).T, bits).astype(np.float32)

    # The first format stores each zero point less one, in words from which 1 a code was taken.
    ones = np.uint32(scheme.zero_offset * sum(1 << shift for shift in range(0, 32, bits)))

    def zero_rows(part: slice) -> Floats:
        found = unsigned(zeros.map().view(np.uint32) + ones, bits)
        return found[:, part].T.astype(np.float32)

    return Scaled(shape, codes, _transposed(scales), zero_rows, order)


def awq(tensors: Leaves, scheme: Scheme) -> Scaled:
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
        codes = unsigned(packed, 4).reshape(packed.shape[0], -1, 8)[:, :, AWQ_ORDER]
        outputs = codes.reshape(packed.shape[0], -1).T
        return outputs[part.start - 8 * first :][: part.stop - part.start].astype(np.float32)

    return rows


def _transposed(ref: TensorRef) -> Rows:
    """Return the rows of a tensor that is stored with its outputs last."""

    def rows(part: slice) -> Floats:
        return np.asarray(ref.map()[:, part]).T.astype(np.float32)

    return rows
