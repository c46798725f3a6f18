"""Codes that share a word: compressed-tensors' pack-quantized format, and ModelOpt's int4.

Sources: compressed-tensors 0.20, compressors/pack_quantized/helpers.py: a code plus half its range,
the first of a row in the lowest bits of its first int32; a row's last int32 is filled with zeros.
ModelOpt 0.47, export/quant_utils.py, pack_int4_in_uint8: two rows share bytes, the first has the
lower half, in two's complement.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef

WORD_BITS = 32
INT4_WORD = "I4"  # ours: safetensors has no word for codes that share a byte


def unsigned(packed: npt.NDArray[Any], num_bits: int) -> npt.NDArray[np.uint8]:
    """Return the codes of 4 or 8 bits in the last axis of words or bytes, lowest bits first."""
    raw = np.ascontiguousarray(packed).view(np.uint8)
    if num_bits == 8:
        return raw
    both = np.empty((*raw.shape, 2), np.uint8)
    np.bitwise_and(raw, 0x0F, out=both[..., 0])
    np.right_shift(raw, 4, out=both[..., 1])
    return both.reshape(*raw.shape[:-1], -1)


def unpack(words: npt.NDArray[np.int32], num_bits: int, columns: int) -> npt.NDArray[np.int8]:
    """Return the codes, int8 [.., columns], of words [.., columns * bits / 32 rounded up]."""
    codes = unsigned(words, num_bits)[..., :columns] - np.uint8(1 << (num_bits - 1))
    return codes.view(np.int8)


def num_words(columns: int, num_bits: int) -> int:
    """Return how many int32 hold a row of codes."""
    return -(-columns * num_bits // WORD_BITS)


@dataclass(frozen=True, slots=True)
class PackedRef(TensorRef):
    """Codes [out, in] that are stored in int32; `dtype` is I8, or I4 where two share a byte."""

    @property
    def num_bits(self) -> int:
        """Bits of a code."""
        return 4 if self.dtype == INT4_WORD else 8

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The type of the decoded codes."""
        return np.dtype(np.int8)

    def map(self) -> npt.NDArray[Any]:
        """Return all codes, decoded into memory."""
        return self.rows(slice(None))

    def rows(self, part: slice) -> npt.NDArray[Any]:
        """Return the codes of some rows, decoded into memory."""
        return unpack(self._words().map()[part], self.num_bits, self.shape[1])

    def _words(self) -> TensorRef:
        shape = (self.shape[0], num_words(self.shape[1], self.num_bits))
        return TensorRef(self.name, "I32", shape, self.path, self.offset, self.num_bytes)


@dataclass(frozen=True, slots=True)
class PairedRef(TensorRef):
    """int4 codes [out, in] of which two rows share bytes [out / 2, in]."""

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The type of the decoded codes."""
        return np.dtype(np.int8)

    def map(self) -> npt.NDArray[Any]:
        """Return all codes, decoded into memory."""
        return self.rows(slice(None))

    def rows(self, part: slice) -> npt.NDArray[Any]:
        """Return the codes of some rows, decoded into memory."""
        start, stop, _ = part.indices(self.shape[0])
        shape = (self.shape[0] // 2, self.shape[1])
        stored = TensorRef(self.name, "U8", shape, self.path, self.offset, self.num_bytes)
        raw = np.asarray(stored.map()[start // 2 : (stop + 1) // 2])
        codes = np.stack([raw << 4, raw], axis=1).view(np.int8) >> 4
        return codes.reshape(-1, shape[1])[start % 2 :][: stop - start]


def paired_ref(stored: TensorRef) -> PairedRef:
    """Return the codes that the bytes [out / 2, in] of `stored` hold."""
    shape = (2 * stored.shape[0], stored.shape[1])
    return PairedRef(stored.name, INT4_WORD, shape, stored.path, stored.offset, stored.num_bytes)


def packed_ref(words: TensorRef, num_bits: int, columns: int) -> PackedRef:
    """Return the codes [out, columns] that the int32 of `words` hold."""
    dtype = INT4_WORD if num_bits == 4 else "I8"
    shape = (words.shape[0], columns)
    return PackedRef(words.name, dtype, shape, words.path, words.offset, words.num_bytes)
