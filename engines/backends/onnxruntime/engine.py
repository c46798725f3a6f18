"""The ONNX Runtime backend: builds the fused graph and runs it on any CPU."""

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.graph.onnx_graph import GRAPH_FILE, NUM_LOGITS, WEIGHTS_FILE
from nemotrt.engines.model.description import describe
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits, step_by_rows
from nemotrt.engines.runtime.state.kept_slots import KeptSlots
from nemotrt.engines.runtime.state.state_pool import StateBuffer, StatePool
from nemotrt.errors import ArtefactError
from nemotrt.files.mapped_file import MappedFile

FED = ("input_ids", "past")
_of_parents: list[Any] = []  # sessions that this process has as a fork, and never ends


def export(
    checkpoint: Checkpoint,
    folder: Path,
    limits: Limits,
    precision: Precision,
    *,
    is_exact: bool = False,
) -> None:
    """Write the fused graph and its weights to `folder`."""
    from nemotrt.engines.backends.onnxruntime.emitter import OnnxRuntimeEmitter
    from nemotrt.engines.graph.onnx_graph import OnnxGraph

    graph = OnnxGraph(checkpoint.config.model_type, folder)
    emitter = OnnxRuntimeEmitter(
        checkpoint, graph, limits.max_seq_len, precision, is_exact=is_exact
    )
    describe(checkpoint.config, emitter)
    graph.save()


def tools() -> dict[str, str]:
    """Return the versions of what the export and the run depend on."""
    return {name: version(name) for name in ("onnx", "onnxruntime")}


class OnnxRuntimeEngine(KeptSlots):
    """An open engine: one session, and state buffers that the graph updates in place.

    Steps of one token run as one batch; prompt chunks run one by one. The cost of a step follows
    the tokens that its sequences hold, not `max_seq_len`.
    """

    def __init__(self, folder: Path, limits: Limits, num_threads: int | None = None) -> None:
        """Open the graph in `folder`; `num_threads` defaults to the cores of this process."""
        self.num_threads = num_threads or len(os.sched_getaffinity(0))
        self._pid = os.getpid()
        self._session = _session(folder, self.num_threads)
        self._mapped = MappedFile(folder / WEIGHTS_FILE)
        inputs = [item for item in self._session.get_inputs() if item.name not in FED]
        optional = {item.name for item in self._session.get_overridable_initializers()}
        self._has_rows = NUM_LOGITS in optional  # engines of earlier versions: one row a call
        self._state_names = [item.name for item in inputs]
        self._states = StatePool(_buffer(item, limits) for item in inputs)
        vocab_size = int(self._session.get_outputs()[-1].shape[-1])
        super().__init__(limits, vocab_size, self._states)

    def step(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Feed the slots; single tokens as one batch, longer chunks one at a time."""
        self.check(feeds)
        rows = self._step(feeds) if self._has_rows else step_by_rows(self._step, feeds)
        self._mapped.check()
        return rows

    def _step(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Run the feeds in groups; return all their rows."""
        rows: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)] * len(feeds)
        single = [index for index, feed in enumerate(feeds) if len(feed.tokens) == 1]
        chunks = [[index] for index, feed in enumerate(feeds) if len(feed.tokens) > 1]
        for group in ([single] if single else []) + chunks:
            found = self._run([feeds[index] for index in group])
            for index, own in zip(group, found, strict=True):
                rows[index] = own
        return np.concatenate(rows)

    def _run(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Run sequences with equally many new tokens as one batch; [len(feeds), rows, vocab]."""
        first, ordered = self.gather(feeds)
        ids = np.array([feed.tokens for feed in ordered], np.int64)
        past = np.array([self.held[feed.slot] for feed in ordered], np.int64)
        binding = self._session.io_binding()
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("past", past)
        wanted = np.array([feeds[0].num_logits], np.int64)
        if self._has_rows:
            binding.bind_input(NUM_LOGITS, "cpu", 0, np.int64, wanted.shape, wanted.ctypes.data)
        binding.bind_output("logits", "cpu")
        for name, state in zip(self._state_names, self._states.buffers, strict=True):
            kind, _, index = name.rpartition("_")
            view = state.array[first : first + len(feeds)]
            place = ("cpu", 0, np.float32, view.shape, view.ctypes.data)
            binding.bind_input(name, *place)
            binding.bind_output(f"{kind}_out_{index}", *place)
        self._session.run_with_iobinding(binding)
        self.advance(feeds)
        by_row = binding.get_outputs()[0].numpy()
        result: npt.NDArray[np.float32] = by_row[[self.row_of(feed) - first for feed in feeds]]
        return result

    def close(self) -> None:
        """Drop the session and the buffers."""
        self._states.close()
        del self._session

    def __del__(self) -> None:
        """Leave the session alone in a fork, which has no threads: it would wait for their end."""
        if os.getpid() != getattr(self, "_pid", os.getpid()) and hasattr(self, "_session"):
            _of_parents.append(self._session)


def _buffer(item: Any, limits: Limits) -> StateBuffer:
    """Return the state buffer of one graph input; symbolic S is the cache's capacity."""
    shape = [limits.max_seq_len if size == "S" else size for size in item.shape[1:]]
    token_axis = item.shape.index("S") - 1 if "S" in item.shape else None
    return StateBuffer.zeros(limits.max_batch_size, tuple(shape), token_axis)


def _session(folder: Path, num_threads: int) -> Any:
    """Return an ONNX Runtime session over the graph in `folder`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # States are updated in place: the planner must not reuse or reorder around them.
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    try:
        return onnxruntime.InferenceSession(
            str(folder / GRAPH_FILE), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions share no base class
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        line = str(error).splitlines()[0]
        raise ArtefactError(f"{folder}: ONNX Runtime can't load the graph: {line}") from error
