"""The Engine over a TensorRT plan: slots of state in device memory, one step over some of them.

Not executed on a GPU by its authors: tests run it over a stand-in for TensorRT and CUDA that
executes the plan's graph in ONNX Runtime and checks every binding.
"""

from collections.abc import Iterator, Sequence
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.engine import Feed, check_feeds, step_by_rows
from nemotrt.engines.manifest import Manifest
from nemotrt.engines.plugins.choice import MambaLayers
from nemotrt.engines.plugins.registration import register_plugins
from nemotrt.engines.slot_table import SlotTable
from nemotrt.engines.tensorrt.compiler import (
    DECODE_PROFILE,
    PLAN_FILE,
    PREFILL_PROFILE,
    prefill_batch,
)
from nemotrt.engines.tensorrt.cuda import Cuda, cuda_api, opened
from nemotrt.engines.tensorrt.device_state import DeviceStates, StateTensor
from nemotrt.engines.tensorrt.device_weights import open_weights, upload
from nemotrt.engines.tensorrt.flavour import flavours, local_compute_capability
from nemotrt.engines.tensorrt.jit_kernels import kernel_file
from nemotrt.engines.tensorrt.plan_runner import PlanRunner, load_module
from nemotrt.errors import ArtefactError, EnvironmentUnfitError

CHUNK_STEP = 64  # prompt chunks are padded to a multiple of so many tokens
FED = ("input_ids", "lengths", "past")


class TensorRTEngine:
    """An open plan. Steps of one token run as one batch, prompt chunks a few at a time."""

    def __init__(
        self, trt: Any, cuda: Cuda, folder: Path, manifest: Manifest, kernels: Path | None = None
    ) -> None:
        """Load the plan, bring the weights to the GPU, and allocate the state.

        `kernels` is the file of kernels that TensorRT compiled when the plan ran before.
        """
        self._limits = manifest.engine_limits
        self._cuda = cuda
        self._runner = PlanRunner(trt, folder / PLAN_FILE, cuda, kernels)
        self._vocab_size = self._runner.shape("logits")[-1]
        self._has_plugins = manifest.options.get("mamba") == MambaLayers.PLUGIN
        self._slots = SlotTable(self._limits.max_batch_size)
        self._held = np.zeros(self._limits.max_batch_size, np.int64)  # by row
        self._weights = {}
        if manifest.weights:
            self._weights = upload(cuda, open_weights(manifest), manifest.weights)
        self._states = DeviceStates(cuda, self._state_tensors(), self._limits.max_batch_size)
        self._allocate_staging()

    def _state_tensors(self) -> list[StateTensor]:
        """Return the plan's states: every input that is neither fed nor a weight."""
        outputs = set(self._runner.names(inputs=False)) - {"logits"}
        tensors = []
        for name in self._runner.names(inputs=True):
            if name in FED or name in self._weights:
                continue
            kind, _, index = name.rpartition("_")
            out_name = f"{kind}_out_{index}"
            if out_name not in outputs:
                raise ArtefactError(f"the plan's input {name} is neither a weight nor a state.")
            outputs.remove(out_name)
            row_bytes = int(np.prod(self._runner.shape(name)[1:])) * self._runner.item_bytes(name)
            is_in_place = self._has_plugins or kind.endswith("_cache")
            tensors.append(StateTensor(name, out_name, row_bytes, is_in_place))
        if outputs:
            raise ArtefactError(f"the plan's outputs {', '.join(sorted(outputs))} are unknown.")
        return tensors

    def _allocate_staging(self) -> None:
        """Allocate what goes in and out in each step, page-locked here and on the device."""
        batch, chunk = self._limits.max_batch_size, self._limits.chunk_tokens
        num_ids = max(batch, prefill_batch(self._limits) * chunk)
        self._host = {
            "input_ids": self._cuda.host_array((num_ids,), np.int64),
            "lengths": self._cuda.host_array((batch,), np.int64),
            "past": self._cuda.host_array((batch,), np.int64),
            "logits": self._cuda.host_array((batch, self._vocab_size), np.float32),
        }
        self._device = {name: self._cuda.allocate(x.nbytes) for name, x in self._host.items()}
        fixed = self._weights | self._device
        self._fixed = {name: buffer.address for name, buffer in fixed.items()}

    @property
    def limits(self) -> Any:
        """The limits that the engine was built for."""
        return self._limits

    @property
    def vocab_size(self) -> int:
        """Number of logits."""
        return self._vocab_size

    def allocate(self) -> int:
        """Return a free slot; its state is zero."""
        return self._slots.allocate()

    def release(self, slot: int) -> None:
        """Free a slot and clear its state."""
        self._slots.release(slot)
        row = self._slots.row_of[slot]
        self._held[row] = 0
        self._states.clear(row)

    def held_tokens(self, slot: int) -> int:
        """Tokens that the slot's state holds."""
        self._slots.check(slot)
        return int(self._held[self._slots.row_of[slot]])

    def step(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Feed the slots; single tokens as one batch, longer chunks a few at a time, padded.

        A plan gives one row of logits a call: tokens that bring more of them run one by one.
        """
        check_feeds(self, feeds)
        return step_by_rows(self._step, feeds)

    def _step(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Run the feeds in groups; return [len(feeds), vocab]."""
        logits = np.empty((len(feeds), self._vocab_size), np.float32)
        for group in self._groups(feeds):
            logits[group] = self._run([feeds[index] for index in group])
        return logits

    def _groups(self, feeds: Sequence[Feed]) -> Iterator[list[int]]:
        """Yield the indices of the feeds that run together."""
        single = [index for index, feed in enumerate(feeds) if len(feed.tokens) == 1]
        if single:
            yield single
        chunks = [index for index, feed in enumerate(feeds) if len(feed.tokens) > 1]
        chunks.sort(key=lambda index: len(feeds[index].tokens))  # alike ones pad each other least
        group: list[int] = []
        for index in chunks:
            if group and not self._fits([feeds[other] for other in [*group, index]]):
                yield group
                group = []
            group.append(index)
        if group:
            yield group

    def _fits(self, feeds: Sequence[Feed]) -> bool:
        """Whether one call takes these chunks; their padding is written to the caches too."""
        tokens = max(len(feed.tokens) for feed in feeds)
        held = max(self.held_tokens(feed.slot) for feed in feeds)
        is_inside = held + tokens <= self._limits.max_seq_len
        return is_inside and len(feeds) <= prefill_batch(self._limits)

    def _run(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Run a batch; return its logits, [len(feeds), vocab]."""
        first, swaps = self._slots.gather([feed.slot for feed in feeds])
        for a, b in swaps:
            self._states.swap(a, b)
            self._held[[a, b]] = self._held[[b, a]]
        rows = range(first, first + len(feeds))
        side = self._states.align(rows)
        row_of = self._slots.row_of
        tokens = self._feed(sorted(feeds, key=lambda feed: row_of[feed.slot]), rows)
        profile = DECODE_PROFILE if tokens == 1 else PREFILL_PROFILE
        addresses = self._fixed | self._states.bindings(first, side)
        key = (first, side) if tokens == 1 else None
        self._runner.run(profile, len(rows), tokens, addresses, key)
        found = self._host["logits"][: len(rows)]
        self._cuda.to_host(found, self._device["logits"].address)
        self._cuda.synchronize()
        self._states.flip(rows)
        self._held[rows.start : rows.stop] += self._host["lengths"][: len(rows)]
        result: npt.NDArray[np.float32] = found[[row_of[feed.slot] - first for feed in feeds]]
        return result

    def _feed(self, ordered: Sequence[Feed], rows: range) -> int:
        """Enqueue the step's inputs; return the tokens that each sequence is padded to."""
        count = len(ordered)
        tokens = self._padded(max(len(feed.tokens) for feed in ordered), rows)
        ids = self._host["input_ids"][: count * tokens].reshape(count, tokens)
        ids[...] = 0
        for line, feed in zip(ids, ordered, strict=True):
            line[: len(feed.tokens)] = feed.tokens
        lengths, past = (self._host[name][:count] for name in ("lengths", "past"))
        lengths[...] = [len(feed.tokens) for feed in ordered]
        past[...] = self._held[rows.start : rows.stop]
        for name, values in (("input_ids", ids), ("lengths", lengths), ("past", past)):
            self._cuda.to_device(self._device[name].address, values)
        return tokens

    def _padded(self, tokens: int, rows: range) -> int:
        """Return the width of a call: of prompt chunks there are few, each a shape to compile for.

        Padding is written to the caches, so a chunk near their end stays as it is.
        """
        if tokens == 1:
            return 1
        width = min(-(-tokens // CHUNK_STEP) * CHUNK_STEP, self._limits.chunk_tokens)
        held = int(self._held[rows.start : rows.stop].max())
        return width if held + width <= self._limits.max_seq_len else tokens

    def close(self) -> None:
        """Free everything."""
        self._runner.close()
        self._cuda.close()


def open_engine(folder: Path, manifest: Manifest) -> TensorRTEngine:
    """Return the open engine of an engine directory.

    Raises:
        EnvironmentUnfitError: no GPU, another GPU, or another TensorRT than the plan is for.
        ArtefactError: the checkpoint with the weights has gone or changed.
    """
    found = local_compute_capability()
    if found is None:
        raise EnvironmentUnfitError(
            f"{folder} is a TensorRT plan for {manifest.gpu}, and this machine has no NVIDIA GPU. "
            "Build with --backend onnxruntime to run on the CPU."
        )
    _check_gpu(folder, manifest, found)
    trt = load_module(_module(manifest))
    register_plugins(folder, manifest)
    kernels = kernel_file(manifest.files[PLAN_FILE].sha256)
    with opened(cuda_api()) as cuda:
        _check_gpu(folder, manifest, cuda.compute_capability)  # CUDA may order the GPUs otherwise
        return TensorRTEngine(trt, cuda, folder, manifest, kernels)


def _check_gpu(folder: Path, manifest: Manifest, found: str) -> None:
    """Raise EnvironmentUnfitError unless the plan is for a GPU of compute capability `found`."""
    if found != manifest.compute_capability:
        raise EnvironmentUnfitError(
            f"{folder} was compiled for {manifest.gpu} (compute capability "
            f"{manifest.compute_capability}); this machine's GPU has {found}. Build it again."
        )


def _module(manifest: Manifest) -> str:
    """Return the Python module of the TensorRT that compiled the plan; it must be here."""
    flavour = next(x for x in flavours() if x.name in manifest.tools)
    wanted = manifest.tools[flavour.name]
    if util.find_spec(flavour.module) is None or flavour.version() != wanted:
        raise EnvironmentUnfitError(
            f"the plan needs {flavour.name} {wanted}, which compiled it: "
            f"pip install '{flavour.packages[0]}=={wanted}'."
        )
    return flavour.module
