"""The device sampler over the stand-in for CUDA, its kernels run by the emulator as queued work."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nemotrt.build.check.kernels.sampler_cases import SETTINGS
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary
from nemotrt.engines.backends.tensorrt.draws.draws import CHOOSE_WARPS, SLICE_WARPS, DeviceDraws
from nemotrt.engines.backends.tensorrt.draws.tables import SAMPLER
from nemotrt.engines.runtime.sampling.draws import CompiledDraws, Turn
from nemotrt.engines.runtime.sampling.guide import FREE, Allowed, Forced
from nemotrt.engines.runtime.sampling.params import SampledToken, SamplingParams
from support import cuda_stand_in
from support.emulated_kernels import EmulatedKernels, emulated_set, guarded


class Blocks(NamedTuple):
    """How wide the kernels' blocks are."""

    slice_warps: int = SLICE_WARPS
    choose_warps: int = CHOOSE_WARPS


SMALL = Blocks(1, 1)  # few fibers: fast


class GuardedCuda(cuda_stand_in.Cuda):
    """Memory ends before a page that can't be touched: what passes its end dies."""

    def _new(self, where: dict[int, Any], size: int) -> int:
        memory = guarded(np.full(size, 0xFF, np.uint8))
        where[memory.ctypes.data] = memory
        return int(memory.ctypes.data)


class QueuedKernels(KernelLibrary):
    """A KernelLibrary whose kernels run when the stand-in's stream comes to them."""

    def __init__(self, api: cuda_stand_in.Cuda, kernels: EmulatedKernels, seed: int = 0) -> None:
        super().__init__(b"")
        self._api, self._emulated, self._seed = api, kernels, seed

    def launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        threads: int,
        arguments: Sequence[Any],
        stream: int,
    ) -> None:
        assert self._emulated.num_parameters(name) == len(arguments)
        values = [type(value).from_buffer_copy(value) for value in arguments]
        places = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))

        def work() -> None:
            assert len(values) == len(places)  # keeps them
            self._emulated.launch_raw(name, grid, threads, ctypes.addressof(places), self._seed)

        self._api.enqueue(work, stream)


class Device:
    """A DeviceDraws, and memory for logits."""

    def __init__(
        self,
        vocab_size: int,
        num_slots: int = 1,
        *,
        num_rows: int | None = None,
        blocks: Blocks = SMALL,
        seed: int = 0,
        kernels: EmulatedKernels | None = None,
        scorer: Any = None,
        gpu: tuple[Cuda, KernelLibrary] | None = None,
    ) -> None:
        """Open it on the stand-in, or on a real GPU."""
        self.api = GuardedCuda()
        if gpu is None:
            library = QueuedKernels(self.api, kernels or emulated_set(SAMPLER), seed)
            gpu = Cuda(self.api), library
        self.cuda, library = gpu
        self.draws = DeviceDraws(
            self.cuda,
            library,
            vocab_size,
            num_slots,
            scorer=scorer or no_scorer(),
            **blocks._asdict(),
        )
        self.host_logits = self.cuda.host_array((num_rows or num_slots, vocab_size), np.float32)
        self.logits = self.cuda.allocate(self.host_logits.nbytes).address

    def upload(self, rows: np.ndarray) -> None:
        """Enqueue logits; what was enqueued is done first, as the rows are written at once."""
        self.cuda.synchronize()
        self.host_logits[: len(rows)] = rows
        self.cuda.to_device(self.logits, self.host_logits)

    def step(self, rows: np.ndarray, turns: Sequence[Turn]) -> list[SampledToken | None]:
        """Choose from logits, and wait."""
        self.upload(rows)
        self.draws.choose(self.logits, turns)
        return self.draws.chosen()

    def tokens_of(
        self,
        params: SamplingParams,
        rows: np.ndarray,
        rules: Sequence[Any],
        prompt: Sequence[int],
        ends: tuple[int, ...],
        slot: int = 0,
    ) -> list[SampledToken | None]:
        """One sequence's choices, row after row."""
        draw = self.draws.open(slot, params, prompt, ends)
        return [
            self.step(row[None], [Turn(0, draw, rules[i % len(rules)])])[0]
            for i, row in enumerate(rows)
        ]

    def close(self) -> None:
        self.cuda.close()


def check_batch(device: Device, rows: np.ndarray, num_steps: int) -> None:
    """All settings side by side, with masks and forced tokens: every token is the CPU's.

    Args:
        device: with a slot for each of SETTINGS.
        rows: [steps * slots, vocab], all of them on the device at once.
        num_steps: how many.
    """
    size, random = rows.shape[1], np.random.default_rng(6)
    cpu = CompiledDraws(size, 1)
    params = [
        SamplingParams(seed=i, max_tokens=99, **kind) for i, kind in enumerate(SETTINGS.values())
    ]
    mine = [device.draws.open(i, each, (1, 2, 2), (0, 4)) for i, each in enumerate(params)]
    theirs = [cpu.open(each, (1, 2, 2), (0, 4)) for each in params]
    device.upload(rows)
    by_step = rows.reshape(num_steps, len(params), size)
    for step in range(num_steps):
        masks = [Allowed(random.random(size) < share) for share in (0.02, 0.5, 0.98)]
        rules = random.choice(np.array([FREE, FREE, Forced(3), *masks], object), len(params))
        order = random.permutation(len(params)).tolist()
        turns = [Turn(i, mine[i], rules[i]) for i in order]
        device.draws.choose(device.logits + step * int(by_step[0].nbytes), turns)
        expected = cpu.choose(by_step[step], [Turn(i, theirs[i], rules[i]) for i in order])
        assert device.draws.chosen() == expected


class _NoScorer:
    def score(self, *_: Any) -> Any:
        raise AssertionError("nobody asked for log-probabilities")


@functools.cache
def no_scorer() -> Any:
    return _NoScorer()
