"""Stands in for TensorRT's runtime: the same calls, executed by ONNX Runtime.

`TensorRT` is the ordinary one; `RtxTensorRT` compiles kernels while it runs. Both speak
tensorrt_rtx_bindings (a test compares the signatures), read the memory of the stand-in for CUDA,
and check what is bound: every name, shape, address, and which of them may overlap.
"""

import ctypes
import json
import shutil
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime

from support.cuda_stand_in import Cuda
from support.graph_runner import as_float32, as_rounded_bfloat16

FP8 = onnx.TensorProto.FLOAT8E4M3FN
DTYPES = {
    onnx.TensorProto.FLOAT: np.dtype(np.float32),
    onnx.TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    onnx.TensorProto.INT64: np.dtype(np.int64),
    onnx.TensorProto.INT8: np.dtype(np.int8),
    FP8: np.dtype(ml_dtypes.float8_e4m3fn),
}


class TensorIOMode(Enum):
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(Enum):
    STATIC = 0
    USER_MANAGED = 2


class DynamicShapesKernelSpecializationStrategy(Enum):
    LAZY = 0
    EAGER = 1


class Logger:
    ERROR = 1

    def __init__(self, min_severity: int = 2) -> None:
        self.min_severity = min_severity


class TensorRT:
    """The module: a plan's bytes are those of the graph file beside it.

    With `is_rounded` each result in bfloat16 is rounded, as a GPU's kernels do; else only what
    lies in memory is. Where `rotates`, a state may be written over another layer's: an execution
    that reads what was written over too early shows it, or reads all before it writes.
    """

    rotates = False

    TensorIOMode = TensorIOMode
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    Logger = Logger

    def __init__(
        self, cuda: Cuda, graph: Path, limits: Any, profiles: Any, *, is_rounded: bool = False
    ) -> None:
        self.cuda, self.graph, self.limits, self.profiles = cuda, graph, limits, profiles
        self.is_rounded = is_rounded
        self.num_executions = 0

    def Runtime(self, logger: Logger) -> "Runtime":  # noqa: N802
        return Runtime(self)


class RtxTensorRT(TensorRT):
    """TensorRT for RTX: `compiled` lists what was compiled for, in this process."""

    DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.compiled: list[str] = []


class IRuntimeCache:
    HEADER = b"kernels of this GPU "

    def __init__(self) -> None:
        self.shapes: set[str] = set()

    def serialize(self) -> memoryview:
        return memoryview(self.HEADER + json.dumps(sorted(self.shapes)).encode())

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(self.HEADER):
            return False
        self.shapes = set(json.loads(blob.removeprefix(self.HEADER)))
        return True


class IRuntimeConfig:
    def __init__(self) -> None:
        self.strategy = ExecutionContextAllocationStrategy.STATIC
        self.dynamic_shapes_kernel_specialization_strategy = (
            DynamicShapesKernelSpecializationStrategy.LAZY
        )
        self.cache = IRuntimeCache()

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self.cache = cache
        return True

    def set_execution_context_allocation_strategy(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> None:
        self.strategy = strategy


class Runtime:
    def __init__(self, module: TensorRT) -> None:
        self.module = module

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "ICudaEngine":
        return ICudaEngine(self.module)


class ICudaEngine:
    device_memory_size_v2 = 4096

    def __init__(self, module: TensorRT) -> None:
        self.module = module
        graph = onnx.load(str(module.graph), load_external_data=False).graph
        self.inputs = {value.name: value.type.tensor_type for value in graph.input}
        self.outputs = {value.name: value.type.tensor_type for value in graph.output}
        self.tensors = self.inputs | self.outputs
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        # constant int8 weights: in float32, not with activations that ONNX Runtime quantizes
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        rewrite = as_rounded_bfloat16 if module.is_rounded else as_float32
        with TemporaryDirectory() as folder:
            # beside the graph's constants, which lie in a file of their own
            shutil.copytree(module.graph.parent, folder, dirs_exist_ok=True)
            path = rewrite(Path(folder) / module.graph.name, Path(folder) / "stand-in.onnx")
            self.session = onnxruntime.InferenceSession(str(path), options)

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        dims = self.tensors[name].shape.dim
        return tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims)

    def get_tensor_dtype(self, name: str) -> np.dtype[Any]:
        return DTYPES[self.tensors[name].elem_type]  # it has the itemsize that is asked for

    def create_execution_context(
        self,
        strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC,
    ) -> "IExecutionContext":
        """Return a context; TensorRT for RTX takes its settings in the place of the strategy."""
        return IExecutionContext(self, strategy)

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()


class IExecutionContext:
    def __init__(self, engine: ICudaEngine, strategy: Any) -> None:
        self.engine, self.cuda = engine, engine.module.cuda
        self.settings = strategy if isinstance(strategy, IRuntimeConfig) else None
        assert (self.settings is not None) == isinstance(engine.module, RtxTensorRT)
        if self.settings is not None:
            strategy = self.settings.strategy
        self.final: set[str] = set()  # the shapes whose kernels will not be replaced any more
        self.needs_memory = strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        self.profile = 0
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle == Cuda.STREAM
        self.profile = profile_index
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= self.engine.device_memory_size_v2
        self.cuda.check(memory, size)
        self.needs_memory = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        known = self.engine.get_tensor_shape(name)
        assert len(shape) == len(known)
        low, _, high = self.engine.module.profiles[self.profile]
        free = [i for i, size in enumerate(known) if size == -1]
        fits = all(
            low[order] <= shape[axis] <= high[order] for order, axis in enumerate(free)
        ) and all(a == b for a, b in zip(shape, known, strict=True) if b != -1)
        if fits:
            self.shapes[name] = shape
        return fits

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert name in self.engine.tensors, name
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Enqueue; addresses and shapes are taken now, memory is read in the stream's turn."""
        assert not self.needs_memory, "the context has no scratch memory"
        assert set(self.addresses) == set(self.engine.tensors), "a tensor has no address"
        addresses, shapes = dict(self.addresses), self._all_shapes()
        for name, shape in shapes.items():
            num_bytes = int(np.prod(shape)) * self.engine.get_tensor_dtype(name).itemsize
            self.cuda.check(addresses[name], num_bytes)
        self._check_aliases(addresses, shapes)
        self._compile(json.dumps(list(shapes.values())))
        self.cuda.enqueue(lambda: self._execute(addresses, shapes), stream_handle)
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        assert stream == Cuda.STREAM
        return json.dumps(list(self._all_shapes().values())) in self.final

    def _compile(self, shapes: str) -> None:
        """Compile for new shapes, at once or (as a real one does in the background) later."""
        if self.settings is None:
            return
        strategies = DynamicShapesKernelSpecializationStrategy
        strategy = self.settings.dynamic_shapes_kernel_specialization_strategy
        assert self.cuda.captured is None or shapes in self.final, "a graph of passing kernels"
        if shapes not in self.settings.cache.shapes:
            self.engine.module.compiled.append(shapes)
            self.settings.cache.shapes.add(shapes)
        if strategy is strategies.EAGER:
            self.final.add(shapes)

    def _all_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return every tensor's shape for the set input shapes."""
        batch = self.shapes["input_ids"][0]
        shapes = {}
        for name in self.engine.tensors:
            known = self.engine.get_tensor_shape(name)
            if name in self.engine.inputs and -1 in known:
                shapes[name] = self.shapes[name]
                assert shapes[name][0] == batch, f"{name} has another batch"
            else:
                shapes[name] = tuple(batch if size == -1 else size for size in known)
        return shapes

    def _check_aliases(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        """What is in place has one address; nothing else that is written overlaps anything."""
        spans = {}
        for name, shape in shapes.items():
            size = int(np.prod(shape)) * self.engine.get_tensor_dtype(name).itemsize
            spans[name] = (addresses[name], addresses[name] + size)
        for out in self.engine.outputs:
            kind, _, index = out.replace("_out_", "_").rpartition("_")
            partner = f"{kind}_{index}"
            for name, (start, end) in spans.items():
                if name == out:
                    continue
                overlaps = start < spans[out][1] and spans[out][0] < end
                if overlaps and spans[out] == (start, end) and self._may_share(out, name):
                    continue
                is_shared = self._is_in_place(kind) and name == partner
                assert overlaps == is_shared, f"{out} and {name}"
                if is_shared:
                    assert spans[out] == (start, end)

    def _is_in_place(self, kind: str) -> bool:
        """Whether a state's output has its input's memory."""
        return kind.endswith("_cache")

    def _may_share(self, out: str, name: str) -> bool:
        """Whether an output may have the very memory of an input that is not its own."""
        own = out.replace("_out_", "_")
        kind, _, _ = own.rpartition("_")
        is_state = kind in ("conv", "ssm") and name.startswith(f"{kind}_")
        return self.engine.module.rotates and is_state and name not in (own, out)

    def _execute(self, addresses: dict[str, int], shapes: dict[str, tuple[int, ...]]) -> None:
        """Run the graph in float32, rounding what it leaves in memory as the plan would."""
        self.engine.module.num_executions += 1
        arrays = {}
        for name, shape in shapes.items():
            dtype = self.engine.get_tensor_dtype(name)
            size = int(np.prod(shape)) * dtype.itemsize
            raw = (ctypes.c_byte * size).from_address(addresses[name])
            arrays[name] = np.frombuffer(raw, dtype).reshape(shape)
        self._run(arrays)

    def _run(self, arrays: dict[str, np.ndarray]) -> None:
        """Compute the outputs from what is in memory, and leave them there."""
        found = self._compute(arrays)
        for name, value in zip(self.engine.outputs, found, strict=True):
            arrays[name][...] = value.astype(arrays[name].dtype)

    def _compute(self, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Return the outputs, in order, for what is in memory."""
        binding = self.engine.session.io_binding()
        for name in self.engine.inputs:
            value, kind = arrays[name], self.engine.inputs[name].elem_type
            if kind == FP8:
                value = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
                    value.view(np.uint8), FP8
                )
                binding.bind_ortvalue_input(name, value)
            else:
                is_bf16 = kind == onnx.TensorProto.BFLOAT16
                binding.bind_cpu_input(name, value.astype(np.float32) if is_bf16 else value.copy())
        for name in self.engine.outputs:
            binding.bind_output(name)
        self.engine.session.run_with_iobinding(binding)
        found: list[np.ndarray] = binding.copy_outputs_to_cpu()
        return found
