"""Rows of state: one owner's row is zero for the next, at the cost of no new page."""

import mmap
import resource

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.engines.runtime.state.state_pool import StateBuffer

ROWS, SHAPE = 3, (2, 40, 257)  # heads, tokens, depth: no row ends with a page


@given(
    st.integers(0, ROWS - 1),
    st.integers(0, SHAPE[1]),
    st.sampled_from([None, 1]),
    st.sampled_from([np.float32, np.float16]),
)
def test_a_cleared_row_is_zero_and_the_others_stay(
    row: int, tokens: int, token_axis: int | None, dtype: type
) -> None:
    buffer = StateBuffer.zeros(ROWS, SHAPE, token_axis, np.dtype(dtype))
    for number in range(ROWS):
        buffer.held(number, tokens)[...] = number + 1
    expected = buffer.array.copy()
    expected[row] = 0
    buffer.clear(row, tokens)
    assert np.array_equal(buffer.array, expected)


@pytest.mark.parametrize("token_axis", [None, 1])
def test_the_next_owner_takes_no_page(token_axis: int | None) -> None:
    shape = (2, 64, 1024)
    buffer = StateBuffer.zeros(2, shape, token_axis)
    num_pages = 4 * int(np.prod(shape)) // mmap.PAGESIZE

    def num_faults() -> int:
        """Write a whole row; return the pages that the system had to find for it."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        buffer.held(1, shape[1])[...] = 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert num_faults() >= num_pages / 16  # large folios take several pages a fault
    buffer.clear(1, shape[1])
    assert num_faults() < num_pages / 64
