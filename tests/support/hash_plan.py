"""A plan whose every step proves its state: the hash engine, in device memory, as TensorRT runs it.

Caches hold the tokens, in two formats of numbers; each layer's states hold the hash of all tokens.
So the tokens that come hang on no chunk, batch or layout, and a state of another text, or of other
tokens than the caches', is found in the step that reads it. Padding is written to caches, as by a
real plan.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt.compile import compiler
from nemotrt.engines.backends.tensorrt.compile.state_proof import STATE_LAYOUT
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.draws.draws import DeviceDraws
from nemotrt.engines.backends.tensorrt.draws.tables import SAMPLER
from nemotrt.engines.backends.tensorrt.graph.options import MambaLayers
from nemotrt.engines.backends.tensorrt.run import engine as engine_module
from nemotrt.engines.backends.tensorrt.run.engine import TensorRTEngine
from nemotrt.engines.runtime.engine import Limits
from support import cuda_stand_in, tensorrt_stand_in
from support.emulated_draws import SMALL, QueuedKernels
from support.emulated_kernels import emulated_set
from support.hash_engine import FACTOR, PRIME, hash_of

VOCAB = 50
NUM_LAYERS = 2
BF16, FP8 = np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn)
EXACT = 199  # whole numbers below are exact in bfloat16


def states(limits: Limits, *, is_dense: bool) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return each state's name, shape and numbers."""
    found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
        "k_cache_0": ((-1, 2, limits.max_seq_len, 1), FP8),
        "v_cache_0": ((-1, 3, limits.max_seq_len, 2), BF16),
    }
    for layer in range(0 if is_dense else NUM_LAYERS):
        found[f"conv_{layer}"] = (-1, 1, 3), BF16
        found[f"ssm_{layer}"] = (-1, 4, 8), np.dtype(np.float32)
    return found


class HashTensorRT(tensorrt_stand_in.TensorRT):
    """The module, for that plan."""

    def __init__(
        self, cuda: cuda_stand_in.Cuda, limits: Limits, layout: StateLayout, *, is_dense: bool
    ) -> None:
        super().__init__(cuda, Path(), limits, compiler.profiles(limits))
        self.layout = layout
        self.states = states(limits, is_dense=is_dense)

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        return Runtime(self)


class Runtime(tensorrt_stand_in.Runtime):
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        assert isinstance(self.module, HashTensorRT)
        return Engine(self.module)


class Engine(tensorrt_stand_in.ICudaEngine):
    def __init__(self, module: HashTensorRT) -> None:
        self.module = module
        number = np.dtype(np.int64)
        self.known = {"input_ids": ((-1, -1), number), "lengths": ((-1,), number)}
        self.known |= {"past": ((-1,), number)} | module.states
        outs = {name.replace("_0", "_out_0").replace("_1", "_out_1"): value
                for name, value in module.states.items()}  # fmt: skip
        outs["logits"] = (-1, VOCAB), np.dtype(np.float32)
        self.inputs, self.outputs = dict.fromkeys(self.known), dict.fromkeys(outs)  # type: ignore[assignment]
        self.tensors = self.inputs | self.outputs
        self.known |= outs

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.known[name][0]

    def get_tensor_dtype(self, name: str) -> np.dtype[Any]:
        return self.known[name][1]

    def create_execution_context(self, strategy: Any = None) -> Any:
        return Context(self, strategy)


class Context(tensorrt_stand_in.IExecutionContext):
    def _is_in_place(self, kind: str) -> bool:
        module: Any = self.engine.module
        return super()._is_in_place(kind) or module.layout is StateLayout.IN_PLACE

    def _may_share(self, out: str, name: str) -> bool:
        """Where a spare rotates, a state is written over that of the layer before."""
        module: Any = self.engine.module
        return module.layout is StateLayout.ROTATING and out.partition("_")[0] in ("conv", "ssm")

    def _run(self, arrays: dict[str, np.ndarray]) -> None:
        arrays["logits"][...] = 0
        found = [
            self._row(b, {name: array[b] for name, array in arrays.items()})
            for b in range(len(arrays["lengths"]))
        ]
        for b, after in enumerate(found):
            arrays["logits"][b, after % VOCAB] = 1 + after / PRIME
            for name, array in arrays.items():
                if name.startswith(("conv_out", "ssm_out")):
                    array[b] = self._state(name, after)

    def _state(self, name: str, value: int) -> int:
        """Return what a layer's state is of a text's hash; of no text it is 0."""
        return (value if name.startswith("ssm") else value % EXACT) + int(name[-1]) + 1

    def _row(self, b: int, own: dict[str, np.ndarray]) -> int:
        """Check one sequence's state, write its caches; return the hash of all tokens then."""
        past, length = int(own["past"]), int(own["lengths"])
        keys = own["k_cache_0"].view(np.uint8)[:, :, 0]
        values = own["v_cache_0"]
        if not past:
            assert not keys.any() and not (values != 0).any(), "another sequence's caches"
        tokens = keys[0, :past].astype(int) - 1
        assert (tokens >= 0).all(), "a token's cache is missing"
        assert (keys[:, :past] == keys[0, :past]).all()
        assert (values[:, :past, 0] == tokens + 1).all(), "the caches are of two texts"
        places = np.arange(own["v_cache_0"].shape[1]) % EXACT
        assert (values[:, :past, 1] == places[:past]).all(), "a token is at another's place"
        before = hash_of(tokens.tolist())
        for name, array in own.items():
            if name.startswith(("conv", "ssm")) and "_out_" not in name:
                wanted = self._state(name, before) if past else 0
                assert (array.astype(np.float32) == wanted).all(), f"{name} is not this text's"
        ids = own["input_ids"]
        keys[:, past : past + len(ids)] = ids + 1
        values[:, past : past + len(ids), 0] = ids + 1
        values[:, past : past + len(ids), 1] = places[past : past + len(ids)]
        for token in ids[:length].tolist():
            before = (before * FACTOR + token + 1) % PRIME
        return before


def open_hash_plan(
    folder: Path,
    limits: Limits,
    layout: StateLayout,
    cuda: cuda_stand_in.Cuda | None = None,
    *,
    is_dense: bool = False,
) -> tuple[TensorRTEngine, cuda_stand_in.Cuda]:
    """Return the engine over the plan, and the stand-in for CUDA."""
    (folder / compiler.PLAN_FILE).touch()
    cuda = cuda or cuda_stand_in.Cuda()
    options = {STATE_LAYOUT: layout.value}
    if layout is StateLayout.IN_PLACE:
        options = {"mamba": MambaLayers.PLUGIN.value}
    manifest: Any = SimpleNamespace(weights={}, engine_limits=limits, options=options)
    trt = HashTensorRT(cuda, limits, layout, is_dense=is_dense)
    return TensorRTEngine(trt, Cuda(cuda), folder, manifest), cuda


class Loaded(QueuedKernels):
    def load(self) -> None:
        """Nothing: the emulator has them."""


@contextmanager
def opened(
    limits: Limits,
    layout: StateLayout,
    *,
    is_ahead: bool = False,
    is_early: bool = False,
    **more: Any,
) -> Iterator[TensorRTEngine]:
    """Open an engine, which chooses tokens itself where it `is_ahead`; all is freed then."""
    cuda = cuda_stand_in.Cuda(is_early=is_early)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if is_ahead:
            kernels = Loaded(cuda, emulated_set(SAMPLER))
            patch.setattr(engine_module, "open_sampler_library", lambda capability: kernels)
            patch.setattr(engine_module, "DeviceDraws", partial(DeviceDraws, **SMALL._asdict()))
        else:
            patch.setattr(TensorRTEngine, "pipeline", lambda engine: None)
        engine, _ = open_hash_plan(Path(folder), limits, layout, cuda, **more)
        yield engine
        engine.close()
    assert not cuda.device and not cuda.host and not cuda.events and not cuda.streams
