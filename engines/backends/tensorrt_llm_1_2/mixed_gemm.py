"""INT8 weights in the order in which TensorRT-LLM's mixed GEMM reads them.

Source: TensorRT-LLM 1.2, cpp/tensorrt_llm/kernels/cutlass_kernels/cutlass_preprocessors.cpp, for
8 bit weights and 16 bit activations. Not executed: no GPU.
"""

import numpy as np
import numpy.typing as npt

# A thread of the tensor core's B operand holds rows 0, 1, 8, 9 of 16, then 2, 3, 10, 11, ...
ROWS_OF_THREADS = np.array([0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15])
TILE_ROWS = 64
INTERLEAVED_COLUMNS = 2
HOPPER = "9.0"


def row_alignment(compute_capability: str) -> int:
    """Return what the input channels of a rank must be a multiple of."""
    return len(ROWS_OF_THREADS) if compute_capability == HOPPER else TILE_ROWS


def mixed_gemm_layout(codes: npt.NDArray[np.int8], compute_capability: str) -> npt.NDArray[np.int8]:
    """Return `codes` [out, in] as TensorRT-LLM's parameter [in, out], in the kernel's order.

    Hopper's kernel reads whole columns; the others read tiles of 64 rows, two columns in turn. A
    code is stored plus 128, in groups of four with the middle two swapped.
    """
    num_columns, num_rows = codes.shape
    columns = codes.reshape(num_columns, -1, len(ROWS_OF_THREADS))[:, :, ROWS_OF_THREADS]
    if compute_capability != HOPPER:
        tiles = (-1, INTERLEAVED_COLUMNS, num_rows // TILE_ROWS, TILE_ROWS)
        columns = columns.reshape(tiles).transpose(0, 2, 1, 3)
    words = columns.reshape(-1, 4)[:, [0, 2, 1, 3]]
    stored = words.view(np.uint8) ^ np.uint8(0x80)  # plus 128, in two's complement
    return stored.view(np.int8).reshape(num_rows, num_columns)
