"""Which of the compiled kernels run, and the length of an error text from the library."""

from enum import IntEnum

ERROR_BYTES = 512


class InstructionSet(IntEnum):
    """Which of the compiled kernels run; `auto` takes the last that the CPU has."""

    AUTO = 0
    PORTABLE = 1
    AVX2 = 2  # with FMA and F16C
    AVX512 = 3  # F, BW, DQ, VL, VNNI
