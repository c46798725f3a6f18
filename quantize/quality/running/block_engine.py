"""One block, or the head, on the native kernels: rows of the residual stream in, rows out.

The program is that of an engine with one block. In place of embeddings it has a table that the
caller fills with the rows that come next; in place of logits it gives what the block adds. No
weight is rounded: int8 codes stay as they are, all else is read as floats.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.backends.native.program.builder import (
    LAST,
    LOGITS,
    RESIDUAL,
    ProgramBuilder,
    Value,
)
from nemotrt.engines.backends.native.program.emitter import NativeEmitter
from nemotrt.engines.backends.native.program.options import NativeOptions
from nemotrt.engines.backends.native.program.packed_weights import PackedWeights, Packing
from nemotrt.engines.backends.native.program.program import (
    PROGRAM_FILE,
    WEIGHTS_FILE,
    OperationKind,
    View,
    round_up,
)
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.model.description import BLOCKS
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.engines.model.tensor_names import Block, model_names
from nemotrt.engines.runtime.engine import Feed, Limits

Floats = npt.NDArray[np.float32]
STREAM = "stream"  # the table
MOST_TOKENS = 256  # of one step; a longer sequence takes several


class StoredWeights(PackedWeights):
    """Linears as they are stored: int8 codes, bfloat16, or floats where neither says all."""

    def _is_int4(self, linear: LinearWeight) -> bool:
        return False

    def _is_int8(self, linear: LinearWeight) -> bool:
        return linear.has_codes

    def _is_float8(self, linear: LinearWeight) -> bool:
        return False

    def _floats(self, linear: LinearWeight, number: NumberFormat) -> Packing:
        is_bf16 = self.checkpoint[linear.name].dtype == NumberFormat.BF16.safetensors
        return super()._floats(linear, NumberFormat.BF16 if is_bf16 else NumberFormat.FP32)

    def room(self, rows: int, columns: int) -> int:
        """Return the tensor that the caller fills."""
        return self._file.reserve(STREAM, rows, columns)


class BlockEmitter(NativeEmitter):
    """Emits one block; its last linear writes what an engine calls logits, not the stream."""

    def __init__(self, checkpoint: Checkpoint, folder: Path, max_seq_len: int) -> None:
        """Start an empty program in `folder`."""
        super().__init__(checkpoint, folder, max_seq_len, Precision.FP32, NativeOptions())
        self.weights: StoredWeights = StoredWeights(checkpoint, folder, Precision.FP32)
        self.builder = ProgramBuilder(self.weights)
        self._last_used = 0

    def stream(self, num_rows: int) -> Value:
        """Start with rows of the table."""
        width = self.config.hidden_size
        table = self.weights.room(num_rows, width)
        target = self.builder.whole(RESIDUAL, width)
        return self.builder.emit(OperationKind.EMBED, target, tensors=(table,))

    def wanted(self, x: Value) -> Value:
        """Keep the rows whose results are wanted: all, but as rows of the results."""
        view = View(buffer=LAST, column=self._last_used, width=x.width)
        self._last_used += round_up(x.width)
        self.builder.whole(LAST, self._last_used)
        kept = self.builder.emit(OperationKind.LAST_TOKEN, view, x)
        return Value(x.width, "sequences", view=kept.view)

    def finish(self, x: Value, folder: Path) -> None:
        """Let the linear `x` write the results, and save the program."""
        self.builder.linear_into(x, self.builder.whole(LOGITS, x.width), adds=False)
        program = self.builder.program(x.width, self.max_seq_len)
        (folder / PROGRAM_FILE).write_text(program.model_dump_json(), encoding="utf-8")

    def relu2(self, x: Value) -> Value:
        """As ever, of the wanted rows."""
        return super().relu2(self.wanted(x))

    def swiglu(self, gate: Value, up: Value) -> Value:
        """As ever, of the wanted rows."""
        return super().swiglu(self.wanted(gate), self.wanted(up))

    def gated_norm(self, x: Value, gate: Value, weight: str, num_groups: int, eps: float) -> Value:
        """As ever, of the wanted rows."""
        return super().gated_norm(self.wanted(x), self.wanted(gate), weight, num_groups, eps)

    def attention(self, q: Value, k: Value, v: Value, block: Block, config: ModelConfig) -> Value:
        """As ever, of the wanted rows."""
        return self.wanted(super().attention(q, k, v, block, config))


class BlockEngine:
    """A block, or the final norm and the head, over sequences that begin with empty state."""

    def __init__(
        self, checkpoint: Checkpoint, block: Block | None, folder: Path, num_tokens: int
    ) -> None:
        """Pack the block (None: the head) into the empty `folder`; sequences have `num_tokens`.

        Raises:
            EnvironmentUnfitError: there is no compiled step, or no room on the disk.
            ArtefactError: a weight can't be read.
        """
        config = checkpoint.config
        emitter = BlockEmitter(checkpoint, folder, num_tokens)
        if block is None:
            names = model_names(config)
            x = emitter.wanted(emitter.stream(config.vocab_size))
            x = emitter.rms_norm(x, names.final_norm, config.norm_eps)
            emitter.finish(emitter.linear(x, names.lm_head), folder)
        else:
            x = emitter.rms_norm(emitter.stream(config.hidden_size), block.norm, config.norm_eps)
            emitter.finish(BLOCKS[block.kind](config, block, x, emitter), folder)
        spec = emitter.weights.specs[0]
        self._step_tokens = min(MOST_TOKENS, spec.rows, num_tokens)
        self._engine = NativeEngine(folder, Limits(1, num_tokens, self._step_tokens))
        self._room: Any = np.memmap(
            folder / WEIGHTS_FILE,
            np.float32,
            "r+",
            spec.offset,
            (self._step_tokens, config.hidden_size),
        )

    def __enter__(self) -> Self:
        """Return the engine itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End its threads and drop its memory."""
        self._engine.close()
        del self._room

    def added(self, hidden: Floats) -> Floats:
        """Return what the block adds to one sequence's stream, or the head's logits.

        Args:
            hidden: [tokens, width].
        """
        slot, parts = self._engine.allocate(), []
        for begin in range(0, len(hidden), self._step_tokens):
            part = hidden[begin : begin + self._step_tokens]
            self._room[: len(part)] = part
            self._engine.weights_written()
            parts.append(self._engine.step([Feed(slot, list(range(len(part))), len(part))]))
        self._engine.release(slot)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
