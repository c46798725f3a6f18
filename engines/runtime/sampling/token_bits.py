"""Sets of tokens as bits, from the lowest of each byte: masks of grammars, and what was seen."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def set_bits(bits: npt.NDArray[np.uint8], tokens: Sequence[int]) -> None:
    """Put some tokens into a set."""
    ids = np.array(tokens, np.int64)
    np.bitwise_or.at(bits, ids // 8, (1 << ids % 8).astype(np.uint8))


def clear_bits(bits: npt.NDArray[np.uint8], tokens: Sequence[int]) -> None:
    """Take some tokens out of a set."""
    ids = np.array(tokens, np.int64)
    np.bitwise_and.at(bits, ids // 8, ~(1 << ids % 8).astype(np.uint8))
