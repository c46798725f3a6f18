"""A native engine's program: fused operations over buffers, packed tensors and states, as JSON.

Each field is checked here by itself; whether a program holds together says step/validate.cpp.
"""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from nemotrt.engines.backends.native.program.options import StateFormat
from nemotrt.engines.model.numerics import NumberFormat, Table
from nemotrt.errors import ArtefactError
from nemotrt.files.model_file import Strict, json_model

PROGRAM_FILE = "program.json"
WEIGHTS_FILE = "weights.bin"
PANEL = 16  # rows of a packed weight that lie side by side; inputs are padded to it too
DEPTH_BLOCK = 2048  # inputs whose products with int8 are summed exactly
CELL = 32  # inputs of a panel whose int4 codes lie together, with a scale for each row
SCALE_BYTES = 2  # of each row of a cell: a half float
ALIGNMENT = 4096  # of every tensor in the weights file: a page
# The most that an operation takes, as in step/program.h.
MAX_SOURCES, MAX_TENSORS, MAX_STATES, MAX_SIZES, MAX_REALS = 4, 4, 2, 4, 2


class OperationKind(StrEnum):
    """What an operation does."""

    EMBED = "embed"
    NORM = "norm"
    LINEAR = "linear"
    RELU2 = "relu2"
    SWIGLU = "swiglu"
    CONV = "conv"
    SCAN = "scan"
    GATED_NORM = "gated_norm"
    ATTENTION = "attention"
    PACK = "pack"
    LAST_TOKEN = "last_token"
    ROUTE = "route"
    EXPERTS = "experts"
    MIX = "mix"


class TensorKind(Table):
    """How a tensor is stored, and its numbers."""

    number: NumberFormat

    VALUES = "values", NumberFormat.FP32  # row after row
    TABLE_BF16 = "table_bf16", NumberFormat.BF16  # row after row
    PANELS_FLOAT = "panels_float", NumberFormat.FP32  # a linear's weight, 16 rows interleaved
    PANELS_BF16 = "panels_bf16_pairs", NumberFormat.BF16  # pairs of inputs interleaved
    # Pairs of inputs interleaved. The scales are a tensor apart: one per row, or one per row and
    # DEPTH_BLOCK inputs.
    PANELS_INT8 = "panels_int8", NumberFormat.INT8
    PANELS_FLOAT8 = "panels_float8", NumberFormat.FP8  # a scale per row is a tensor apart
    # In cells of 32 inputs with their scales as half floats; a factor per row is a tensor apart.
    PANELS_INT4 = "panels_int4", NumberFormat.INT4

    @property
    def depth_step(self) -> int:
        """To what multiple a linear's inputs are padded."""
        return CELL if self is TensorKind.PANELS_INT4 else PANEL

    def num_bytes(self, rows: int, columns: int) -> int:
        """Return the size of a matrix, which is whole panels and cells for a linear's weight."""
        scales = rows * columns // CELL * SCALE_BYTES if self is TensorKind.PANELS_INT4 else 0
        return rows * columns * self.number.num_bits // 8 + scales


ROW_KINDS = (TensorKind.VALUES, TensorKind.TABLE_BF16)


class BufferFormat(StrEnum):
    """What a buffer holds."""

    ROWS = "rows"  # float32, one row a token or sequence
    OPERAND_FLOAT = "operand_float"  # what linears with float weights read
    OPERAND_INT16 = "operand_int16"  # what linears with int8 weights read
    OPERAND_INT8 = "operand_int8"  # what linears with int4 weights read


RowSet = Literal["tokens", "sequences"]
Count = Annotated[int, pydantic.Field(ge=0, lt=1 << 31)]  # int32 in the library
Size = Annotated[int, pydantic.Field(ge=1, lt=1 << 31)]
Width = Annotated[int, pydantic.Field(ge=1, le=1 << 26)]
Offset = Annotated[int, pydantic.Field(ge=0, lt=1 << 62)]


class View(Strict):
    """Adjoining columns of a buffer."""

    buffer: Count
    column: Count
    width: Size


class BufferSpec(Strict):
    """Working memory of one step; an operand holds tokens or sequences, whatever was last put."""

    format: BufferFormat
    rows: RowSet
    width: Width


class WeightTensor(Strict):
    """One tensor of the weights file."""

    name: str
    kind: TensorKind
    rows: Width
    columns: Width
    offset: Offset

    @property
    def num_bytes(self) -> int:
        """Size in the weights file; panels are padded to 16 rows, and their columns too."""
        if self.kind in ROW_KINDS:
            return self.kind.num_bytes(self.rows, self.columns)
        columns = round_up(self.columns, self.kind.depth_step)
        return self.kind.num_bytes(round_up(self.rows), columns)


class StateSpec(Strict):
    """Carried state of one slot."""

    name: str
    shape: tuple[Size, ...]
    format: StateFormat = StateFormat.FLOAT32

    @property
    def num_elements(self) -> int:
        """Elements of one slot."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Size of one slot."""
        return self.num_elements * self.format.number.num_bytes


class Operation(Strict):
    """One fused operation; step/program.h and validate.cpp say what each kind takes.

    None is an absent tensor.
    """

    kind: OperationKind
    rows: RowSet
    target: View
    sources: Annotated[tuple[View, ...], pydantic.Field(max_length=MAX_SOURCES)] = ()
    tensors: Annotated[tuple[Count | None, ...], pydantic.Field(max_length=MAX_TENSORS)] = ()
    states: Annotated[tuple[Count, ...], pydantic.Field(max_length=MAX_STATES)] = ()
    sizes: Annotated[tuple[Count, ...], pydantic.Field(max_length=MAX_SIZES)] = ()
    reals: Annotated[tuple[float, ...], pydantic.Field(max_length=MAX_REALS)] = ()


class Program(Strict):
    """The whole of program.json."""

    schema_version: Literal[1] = 1
    vocab_size: Size
    max_seq_len: Size
    logits: Count  # the buffer that holds them
    buffers: Annotated[tuple[BufferSpec, ...], pydantic.Field(max_length=64)]
    tensors: tuple[WeightTensor, ...]
    states: tuple[StateSpec, ...]
    operations: tuple[Operation, ...]


def num_blocks(inputs: int) -> int:
    """Return how many blocks of DEPTH_BLOCK a linear's inputs are in."""
    return -(-inputs // DEPTH_BLOCK)


def round_up(size: int, step: int = PANEL) -> int:
    """Return the next multiple of `step`."""
    return -(-size // step) * step


def read_program(folder: Path) -> Program:
    """Return the program of an engine directory, each field checked by itself.

    Raises:
        ArtefactError: program.json is missing, not JSON, or not of this schema.
    """
    try:
        return json_model(Program, folder / PROGRAM_FILE)
    except ArtefactError as error:
        raise ArtefactError(f"{error.message} Build the engine again.") from error
