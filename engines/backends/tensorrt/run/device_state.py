"""The state of all sequences in device memory, one row per sequence.

A KV cache is written in place, which TensorRT's KVCacheUpdate demands; so are all states where our
plugins update them. TensorRT's own layers read and write convolution windows and SSM states by
kernels in an order that it does not promise, so a step writes them elsewhere:

- Where one spare rotates, a decode step writes each layer's state over what the layer before has
  read, and the first layer's over the spare. The build has proven from the plan's kernels that the
  layer before is done by then. A prompt call, of which that does not hold, writes a scratch for its
  few sequences, which is copied back behind it.
- With two sides, each call reads one and writes the other.

A row's phase says where its states lie; a call's rows have one phase.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

from nemotrt.engines.artefact.manifest import Manifest
from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt.compile.state_proof import STATE_LAYOUT
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda, DeviceBuffer
from nemotrt.engines.backends.tensorrt.graph.options import MambaLayers
from nemotrt.engines.backends.tensorrt.run.state_tensors import StateTensor, num_layers
from nemotrt.errors import ArtefactError


def state_layout(manifest: Manifest) -> StateLayout:
    """Return where the plan's steps write states: what the build has proven, else two sides.

    Raises:
        ArtefactError: the manifest has a word that this version does not know.
    """
    if manifest.options.get("mamba") == MambaLayers.PLUGIN:
        return StateLayout.IN_PLACE
    word = manifest.options.get(STATE_LAYOUT, StateLayout.TWO_SIDES)
    if word not in (StateLayout.ROTATING, StateLayout.TWO_SIDES):
        raise ArtefactError(f"the engine's {STATE_LAYOUT} is {word!r}; build it again.")
    return StateLayout(word)


class DeviceStates:
    """Buffers for `num_rows` sequences, and the phase of each row."""

    def __init__(
        self,
        cuda: Cuda,
        tensors: list[StateTensor],
        num_rows: int,
        layout: StateLayout,
        scratch_rows: int = 0,
    ) -> None:
        """Allocate, and enqueue zeros.

        Args:
            cuda: the device.
            tensors: of the plan.
            num_rows: sequences.
            layout: of what is no cache.
            scratch_rows: sequences of a prompt call, where it writes its states apart.

        Raises:
            ArtefactError: layers of one kind differ in size, or are not numbered from 0.
        """
        self.phase = [0] * num_rows
        self._cuda = cuda
        self._tensors = tensors
        self._moved = [tensor for tensor in tensors if not tensor.is_cache]
        self._num_rows = num_rows
        self._layout = layout
        self._scratch_rows = scratch_rows
        self._num_layers = num_layers(tensors)
        periods = (layout.period(self._num_layers[tensor.kind]) for tensor in self._moved)
        self._period = max(periods, default=1)  # of either kind: both have one of each layer
        self._current = 0  # the phase that the last decode step left
        self._buffers = {kind: self._allocate(kind) for kind in self._num_layers}
        apart = [scratch_rows * tensor.row_bytes for tensor in self._moved]
        self._scratch_at = dict(zip(self._moved, accumulate(apart, initial=0), strict=False))
        largest = max((tensor.row_bytes for tensor in tensors), default=0)
        self._scratch = cuda.allocate(max(sum(apart), largest))  # a swap needs one row of a tensor

    def _allocate(self, kind: str) -> DeviceBuffer:
        """Return zeroed memory for every layer of a kind."""
        tensor = next(tensor for tensor in self._tensors if tensor.kind == kind)
        num_buffers = self._layout_of(tensor).buffers(self._num_layers[kind])
        buffer = self._cuda.allocate(num_buffers * self._num_rows * tensor.row_bytes)
        self._cuda.zero(buffer.address, buffer.num_bytes)
        return buffer

    def _layout_of(self, tensor: StateTensor) -> StateLayout:
        return StateLayout.IN_PLACE if tensor.is_cache else self._layout

    def address(self, tensor: StateTensor, row: int, phase: int) -> int:
        """Return where a row of a state lies in a phase."""
        layers = self._num_layers[tensor.kind]
        place = self._layout_of(tensor).buffer(tensor.layer, layers, phase)
        start = self._buffers[tensor.kind].address
        return start + (place * self._num_rows + row) * tensor.row_bytes

    def bindings(self, rows: range, *, is_prompt: bool) -> tuple[int, dict[str, int]]:
        """Bring the rows to one phase; return it, and graph tensor -> address of the first row."""
        phase, first = self._align(rows), rows[0]
        found = {}
        for tensor in self._tensors:
            found[tensor.name] = self.address(tensor, first, phase)
            found[tensor.out_name] = self.address(tensor, first, phase + 1)
        if is_prompt and self._scratch_rows:
            found |= {tensor.out_name: self._apart(tensor) for tensor in self._moved}
        return phase, found

    def written(self, rows: range, *, is_prompt: bool) -> None:
        """Note that a call has written what `bindings` said; bring back what lies apart."""
        if is_prompt and self._scratch_rows:
            for tensor in self._moved:
                target = self.address(tensor, rows[0], self._current)
                self._cuda.copy(target, self._apart(tensor), len(rows) * tensor.row_bytes)
            phase = self._current
        else:
            phase = (self.phase[rows[0]] + 1) % self._period
        for row in rows:
            self.phase[row] = phase
        if not is_prompt:
            self._current = phase

    def _apart(self, tensor: StateTensor) -> int:
        """Return where a prompt call writes a state apart."""
        return self._scratch.address + self._scratch_at[tensor]

    def _align(self, rows: range) -> int:
        """Bring the rows to one phase, the one that most have, and return it."""
        phase, _ = Counter(self.phase[row] for row in rows).most_common(1)[0]
        for row in rows:
            if self.phase[row] != phase:
                for source, target, num_bytes in self._moves(row, phase):
                    self._cuda.copy(target, source, num_bytes)
                self.phase[row] = phase
        return phase

    def _moves(self, row: int, phase: int) -> Iterator[tuple[int, int, int]]:
        """Yield the copies (source, target, bytes) that bring a row to a phase.

        Where a spare rotates, most of the targets hold another layer's state: they go by way of the
        scratch, which has room for a row of every layer.
        """
        for tensor in self._moved:
            source = self.address(tensor, row, self.phase[row])
            if self._scratch_rows:
                yield source, self._apart(tensor), tensor.row_bytes
            else:
                yield source, self.address(tensor, row, phase), tensor.row_bytes
        for tensor in self._moved if self._scratch_rows else ():
            yield self._apart(tensor), self.address(tensor, row, phase), tensor.row_bytes

    def clear(self, row: int, tokens: int) -> None:
        """Enqueue zeros for a whole row, whatever it held; zeros are right in any phase."""
        self.phase[row] = self._current
        for tensor in self._tensors:
            self._cuda.zero(self.address(tensor, row, self._current), tensor.row_bytes)

    def swap(self, first: int, second: int, tokens: int) -> None:
        """Exchange two whole rows, whatever they hold; each keeps its phase."""
        spare = self._scratch.address
        for tensor in self._tensors:
            a, b = (self.address(tensor, row, self.phase[row]) for row in (first, second))
            for target, source in ((spare, a), (a, b), (b, spare)):
                self._cuda.copy(target, source, tensor.row_bytes)
