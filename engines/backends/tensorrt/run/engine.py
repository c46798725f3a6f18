"""The Engine over a TensorRT plan: slots of state in device memory, one step over some of them.

Not executed on a GPU by its authors: tests run it over a stand-in for TensorRT and CUDA that
executes the plan's graph in ONNX Runtime and checks every binding.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.artefact.manifest import Manifest
from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions
from nemotrt.engines.artefact.weights import open_weights
from nemotrt.engines.backends.protocol.local_gpu import check_same_gpu, local_compute_capability
from nemotrt.engines.backends.protocol.own_runtime import prefill_batch
from nemotrt.engines.backends.tensorrt.compile.compiler import (
    DECODE_PROFILE,
    PLAN_FILE,
    PREFILL_PROFILE,
)
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda, cuda_api, opened
from nemotrt.engines.backends.tensorrt.device.jit_kernels import kernel_file
from nemotrt.engines.backends.tensorrt.draws.draws import DeviceDraws
from nemotrt.engines.backends.tensorrt.draws.library import open_sampler_library
from nemotrt.engines.backends.tensorrt.graph.export import FED
from nemotrt.engines.backends.tensorrt.plugins.registration import register_plugins
from nemotrt.engines.backends.tensorrt.run.batch_inputs import BatchInputs
from nemotrt.engines.backends.tensorrt.run.device_state import state_layout
from nemotrt.engines.backends.tensorrt.run.device_weights import upload
from nemotrt.engines.backends.tensorrt.run.kept_rows import KeptRows
from nemotrt.engines.backends.tensorrt.run.needs import plan_module
from nemotrt.engines.backends.tensorrt.run.pipeline import Chosen, TensorRTPipeline
from nemotrt.engines.backends.tensorrt.run.plan_runner import PlanRunner, load_module
from nemotrt.engines.backends.tensorrt.run.state_tensors import state_tensors
from nemotrt.engines.runtime.engine import CHOSEN, Feed, step_by_rows
from nemotrt.engines.runtime.pipeline import Pipeline
from nemotrt.engines.runtime.sampling.draws import open_draws
from nemotrt.engines.runtime.state.kept_slots import KeptSlots
from nemotrt.errors import NemotrtError

CHUNK_STEP = 64  # prompt chunks are padded to a multiple of so many tokens
log = logging.getLogger("nemotrt.engine")


class TensorRTEngine(KeptSlots):
    """An open plan. Steps of one token run as one batch, prompt chunks a few at a time."""

    def __init__(
        self,
        trt: Any,
        cuda: Cuda,
        folder: Path,
        manifest: Manifest,
        kernels: Path | None = None,
        options: OpenOptions = AS_BUILT,
    ) -> None:
        """Load the plan, bring the weights to the GPU, and allocate the state.

        `kernels` is the file of kernels that TensorRT compiled when the plan ran before.
        """
        self._cuda = cuda
        self._runner = PlanRunner(trt, folder / PLAN_FILE, cuda, kernels)
        self._weights = {}
        if manifest.weights:
            self._weights = upload(cuda, open_weights(folder, manifest, options), manifest.weights)
        limits, layout = manifest.engine_limits, state_layout(manifest)
        self._states = KeptRows(
            cuda,
            state_tensors(self._runner, {*FED, *self._weights}),
            limits.max_batch_size,
            layout,
            layout.scratch_rows(limits.max_batch_size, limits.chunk_tokens),
        )
        super().__init__(limits, self._runner.shape("logits")[-1], self._states)
        self._allocate_buffers()

    def _allocate_buffers(self) -> None:
        """Allocate what goes in and out in each step, page-locked here and on the device."""
        batch, chunk = self.limits.max_batch_size, self.limits.chunk_tokens
        self._prefill_batch = prefill_batch(batch, chunk)
        num_ids = max(batch, self._prefill_batch * chunk)
        self._inputs = BatchInputs(self._cuda, num_ids, batch)
        self._logits = self._cuda.host_array((batch, self.vocab_size), np.float32)
        inputs = self._inputs.device
        self._logits_at = self._cuda.allocate(self._logits.nbytes).address
        self._fixed = inputs | {name: buffer.address for name, buffer in self._weights.items()}

    def pipeline(self) -> Pipeline | None:
        """Return a pipeline that chooses tokens on the GPU, a step ahead of the host.

        None, and a warning in the log, where nothing here compiles its kernels.
        """
        try:
            library = open_sampler_library(self._cuda.compute_capability)
            library.load()
        except NemotrtError as error:
            log.warning("tokens are chosen by the host, which the GPU waits for: %s", error)
            return None
        slots, scorer = self.limits.max_batch_size, open_draws(self)
        draws = DeviceDraws(self._cuda, library, self.vocab_size, slots, scorer=scorer)
        return TensorRTPipeline(self, draws, scorer)

    def step(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Feed the slots; single tokens as one batch, longer chunks a few at a time, padded.

        A plan gives one row of logits a call: tokens that bring more of them run one by one.
        """
        self.check(feeds)
        return step_by_rows(self._step, feeds)

    def _step(self, feeds: Sequence[Feed]) -> npt.NDArray[np.float32]:
        """Run the feeds; return [len(feeds), vocab]."""
        return self.fetch(self.enqueue(feeds))

    def fetch(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """Wait for what is enqueued; return rows of the logits."""
        first, end = min(rows), max(rows) + 1
        found = self._logits[: end - first]
        self._cuda.to_host(found, self.logits_address(first))
        self._cuda.synchronize()
        return found[[row - first for row in rows]]

    def logits_address(self, row: int = 0) -> int:
        """Return where a row of the logits lies on the device."""
        return self._logits_at + row * self.vocab_size * self._logits.itemsize

    def enqueue(
        self, feeds: Sequence[Feed], first_row: int = 0, chosen: Chosen | None = None
    ) -> list[int]:
        """Put the feeds in the stream, in groups; return the row of the logits of each."""
        row_of = [0] * len(feeds)
        for group in self._groups(feeds):
            rows = self._run([feeds[index] for index in group], first_row, chosen)
            for index, row in zip(group, rows, strict=True):
                row_of[index] = row
            first_row += len(group)
        return row_of

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
        is_inside = held + tokens <= self.limits.max_seq_len
        return is_inside and len(feeds) <= self._prefill_batch

    def _run(self, feeds: Sequence[Feed], first_row: int, chosen: Chosen | None) -> list[int]:
        """Enqueue a batch; return its rows of the logits, which begin at `first_row`."""
        first, ordered = self.gather(feeds)
        rows = range(first, first + len(feeds))
        tokens = self._feed(ordered, chosen)
        is_prompt = tokens > 1
        phase, states = self._states.bindings(rows, is_prompt=is_prompt)
        addresses = self._fixed | states | {"logits": self.logits_address(first_row)}
        profile = PREFILL_PROFILE if is_prompt else DECODE_PROFILE
        key = None if is_prompt else (first, phase, first_row)
        self._runner.run(profile, len(rows), tokens, addresses, key)
        self._states.written(rows, is_prompt=is_prompt)
        self.advance(feeds)
        return [first_row + self.row_of(feed) - first for feed in feeds]

    def _feed(self, ordered: Sequence[Feed], chosen: Chosen | None) -> int:
        """Enqueue a batch's inputs; return the tokens that each sequence is padded to."""
        held = np.array([self.held[feed.slot] for feed in ordered], np.int64)
        tokens = self._padded(max(len(feed.tokens) for feed in ordered), int(held.max()))
        self._inputs.send([feed.tokens for feed in ordered], tokens, held)
        slots = [feed.slot if feed.tokens[0] == CHOSEN else -1 for feed in ordered]
        if chosen is not None and max(slots) >= 0:
            chosen(self._fixed["input_ids"], slots)
        return tokens

    def _padded(self, tokens: int, held: int) -> int:
        """Return the width of a call: of prompt chunks there are few, each a shape to compile for.

        Padding is written to the caches, so a chunk near their end stays as it is.
        """
        if tokens == 1:
            return 1
        width = min(-(-tokens // CHUNK_STEP) * CHUNK_STEP, self.limits.chunk_tokens)
        return width if held + width <= self.limits.max_seq_len else tokens

    def close(self) -> None:
        """Free everything."""
        self._runner.close()
        self._cuda.close()


def open_engine(
    folder: Path, manifest: Manifest, options: OpenOptions = AS_BUILT
) -> TensorRTEngine:
    """Return the open engine of an engine directory.

    Raises:
        EnvironmentUnfitError: no GPU, another GPU, or another TensorRT than the plan is for.
        ArtefactError: the checkpoint with the weights has gone or changed.
    """
    check_same_gpu(folder, manifest, local_compute_capability())
    trt = load_module(plan_module(manifest))
    register_plugins(folder, manifest)
    kernels = kernel_file(manifest.files[PLAN_FILE].sha256)
    with opened(cuda_api()) as cuda:
        # CUDA may order the GPUs otherwise
        check_same_gpu(folder, manifest, cuda.compute_capability)
        return TensorRTEngine(trt, cuda, folder, manifest, kernels, options)
