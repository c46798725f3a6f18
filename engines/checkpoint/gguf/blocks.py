"""ggml's types: how many numbers a block has, its bytes, and what they stand for.

Source: llama.cpp, gguf-py 0.20, constants.py (GGML_QUANT_SIZES) and quants.py; the arithmetic is
the same to the bit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.uint8]  # [blocks, bytes of one]
GROUP = 32  # numbers that share a scale, in the plain types and inside Q4_K and Q5_K
SUPER = 256  # numbers of a block of a K type


@dataclass(frozen=True, slots=True)
class BlockType:
    """A type of tensor: its word, numbers and bytes of a block, and how a block is decoded.

    Floats have no decoder; `safetensors` is what their type is called there.
    """

    word: str
    block_size: int
    block_bytes: int
    decode: Callable[[Blocks], Floats] | None = None
    safetensors: str = ""


def _half(blocks: Blocks, place: int) -> Floats:
    """Return the float16 at a place of each block, [blocks, 1]."""
    return blocks[:, place : place + 2].copy().view(np.float16).astype(np.float32)


def _nibbles(packed: Blocks, size: int) -> npt.NDArray[np.uint8]:
    """Return the codes of runs of `size` bytes: their low halves, then their high ones."""
    runs = packed.reshape(packed.shape[0], -1, 1, size)
    both = runs >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1)
    return (both & np.uint8(15)).reshape(packed.shape[0], -1)


def _fifth_bits(packed: Blocks) -> npt.NDArray[np.uint8]:
    """Return bit i of the 32 that four bytes hold as the fifth bit of code i."""
    return np.unpackbits(packed, axis=1, bitorder="little") << np.uint8(4)


def _q8_0(blocks: Blocks) -> Floats:
    return blocks[:, 2:].view(np.int8).astype(np.float32) * _half(blocks, 0)


def _q4_0(blocks: Blocks) -> Floats:
    codes = _nibbles(blocks[:, 2:], GROUP // 2).astype(np.int8) - np.int8(8)
    return _half(blocks, 0) * codes.astype(np.float32)


def _q4_1(blocks: Blocks) -> Floats:
    codes = _nibbles(blocks[:, 4:], GROUP // 2).astype(np.float32)
    return _half(blocks, 0) * codes + _half(blocks, 2)


def _q5_0(blocks: Blocks) -> Floats:
    codes = _nibbles(blocks[:, 6:], GROUP // 2) | _fifth_bits(blocks[:, 2:6])
    return _half(blocks, 0) * (codes.astype(np.int8) - np.int8(16)).astype(np.float32)


def _q5_1(blocks: Blocks) -> Floats:
    codes = _nibbles(blocks[:, 8:], GROUP // 2) | _fifth_bits(blocks[:, 4:8])
    return _half(blocks, 0) * codes.astype(np.float32) + _half(blocks, 2)


def _scales_and_least(blocks: Blocks) -> tuple[Floats, Floats]:
    """Return the scale and the least value of each group of a Q4_K or Q5_K block, [blocks, 8, 1].

    Twelve bytes at 4 hold eight 6 bit scales and eight 6 bit minima.
    """
    low, least, rest = np.split(blocks[:, 4:16].reshape(-1, 3, 4), 3, axis=1)
    scales = np.concatenate([low & 63, (rest & 15) | ((low >> 2) & 48)], axis=-1)
    minima = np.concatenate([least & 63, (rest >> 4) | ((least >> 2) & 48)], axis=-1)
    count = blocks.shape[0]
    factors = (_half(blocks, 0), scales), (_half(blocks, 2), minima)
    first, second = (
        (factor * six.reshape(count, 8).astype(np.float32)).reshape(count, 8, 1)
        for factor, six in factors
    )
    return first, second


def _q4_k(blocks: Blocks) -> Floats:
    scales, least = _scales_and_least(blocks)
    codes = _nibbles(blocks[:, 16:], 32).reshape(-1, 8, 32).astype(np.float32)
    return (scales * codes - least).reshape(-1, SUPER)


def _q5_k(blocks: Blocks) -> Floats:
    scales, least = _scales_and_least(blocks)
    low = _nibbles(blocks[:, 48:], 32).reshape(-1, 8, 32)
    bits = blocks[:, 16:48].reshape(-1, 1, 32) >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1)
    codes = low | ((bits & np.uint8(1)) << np.uint8(4))
    return (scales * codes.astype(np.float32) - least).reshape(-1, SUPER)


def _q6_k(blocks: Blocks) -> Floats:
    low = _nibbles(blocks[:, :128], 64).reshape(-1, 8, 32)
    shifts = np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & np.uint8(3)
    codes = (low | (high.reshape(-1, 8, 32) << np.uint8(4))).astype(np.int8) - np.int8(32)
    scales = _half(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    values = scales.reshape(-1, 16, 1) * codes.reshape(-1, 16, 16).astype(np.float32)
    return values.reshape(-1, SUPER)


# By ggml's number of the type.
TYPES = {
    0: BlockType("F32", 1, 4, safetensors="F32"),
    1: BlockType("F16", 1, 2, safetensors="F16"),
    2: BlockType("Q4_0", GROUP, 18, _q4_0),
    3: BlockType("Q4_1", GROUP, 20, _q4_1),
    6: BlockType("Q5_0", GROUP, 22, _q5_0),
    7: BlockType("Q5_1", GROUP, 24, _q5_1),
    8: BlockType("Q8_0", GROUP, 34, _q8_0),
    12: BlockType("Q4_K", SUPER, 144, _q4_k),
    13: BlockType("Q5_K", SUPER, 176, _q5_k),
    14: BlockType("Q6_K", SUPER, 210, _q6_k),
    30: BlockType("BF16", 1, 2, safetensors="BF16"),
}
BY_WORD = {item.word: item for item in TYPES.values()}
