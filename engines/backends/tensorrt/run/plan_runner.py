"""One TensorRT plan on the GPU: its contexts, what is bound to it, and its CUDA graphs.

A context a shape: decode batches of one size share one, so that a captured graph never meets
another shape's internal state. All contexts share one piece of scratch memory, since only one runs
at a time.
"""

from collections import OrderedDict
from importlib import import_module
from pathlib import Path
from typing import Any

from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.device.jit_kernels import JitKernels, has_jit
from nemotrt.errors import ArtefactError

# Captured graphs that are kept: where a spare state rotates, the 9B has 28 for each batch size.
MAX_GRAPHS = 128


class PlanRunner:
    """Runs a plan with any addresses bound to its tensors."""

    def __init__(self, trt: Any, plan: Path, cuda: Cuda, kernels: Path | None = None) -> None:
        """Load the plan.

        Args:
            trt: TensorRT's module.
            plan: the plan's file.
            cuda: the device.
            kernels: the file of kernels that TensorRT for RTX compiled before; None keeps none.

        Raises:
            ArtefactError: TensorRT refuses it.
        """
        self._trt, self._cuda = trt, cuda
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._logger)
        self.engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self.engine is None:
            raise ArtefactError(f"TensorRT can't load {plan}: it is for another GPU or version.")
        self._jit = JitKernels(trt, self.engine, kernels) if has_jit(trt) else None
        self._contexts: dict[tuple[int, int, int], Any] = {}
        self._graphs: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._seen: set[tuple[Any, ...]] = set()
        self._scratch_bytes = int(self.engine.device_memory_size_v2)
        self._scratch = cuda.allocate(self._scratch_bytes)

    def names(self, *, inputs: bool) -> list[str]:
        """Return the names of the plan's inputs or outputs."""
        mode = self._trt.TensorIOMode.INPUT if inputs else self._trt.TensorIOMode.OUTPUT
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        return [name for name in names if self.engine.get_tensor_mode(name) == mode]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape; -1 where it is free."""
        return tuple(self.engine.get_tensor_shape(name))

    def item_bytes(self, name: str) -> int:
        """Return the bytes of one element of a tensor."""
        return int(self.engine.get_tensor_dtype(name).itemsize)

    def run(
        self,
        profile: int,
        batch: int,
        tokens: int,
        addresses: dict[str, int],
        key: tuple[int, ...] | None = None,
    ) -> None:
        """Enqueue one execution.

        Args:
            profile: the optimization profile.
            batch: number of sequences.
            tokens: new tokens of each.
            addresses: where every tensor lies.
            key: calls of one key have the same addresses: the second captures a CUDA graph,
                which later ones launch. None never captures.
        """
        full = (profile, batch, tokens, *key) if key is not None else ()
        if full in self._graphs:
            self._graphs.move_to_end(full)
            self._cuda.launch(self._graphs[full])
            return
        context = self._context(profile, batch, tokens)
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise ArtefactError(f"TensorRT refuses the address of {name}.")
        self._enqueue(context)
        if not full:
            return
        if full in self._seen and self._is_capturable(context):  # what it needs is set up
            self._keep(full, self._cuda.capture(lambda: self._enqueue(context)))
        self._seen.add(full)

    def _enqueue(self, context: Any) -> None:
        if not context.execute_async_v3(self._cuda.stream):
            raise ArtefactError("TensorRT failed to run the plan; its log is on stderr.")

    def _is_capturable(self, context: Any) -> bool:
        """Whether the context's work may become a graph now; ordinary TensorRT's always may."""
        return self._jit is None or bool(context.is_stream_capturable(self._cuda.stream))

    def _keep(self, key: tuple[Any, ...], graph: Any) -> None:
        """Keep a graph, and drop the one that was not used for longest."""
        self._graphs[key] = graph
        if len(self._graphs) > MAX_GRAPHS:
            self._cuda.synchronize()
            old, dropped = self._graphs.popitem(last=False)
            self._seen.discard(old)
            self._cuda.destroy_graph(dropped)

    def _context(self, profile: int, batch: int, tokens: int) -> Any:
        """Return the context of a shape; prompt chunks of every shape share one."""
        key = (profile, batch, tokens) if tokens == 1 else (profile, 0, 0)
        if key not in self._contexts:
            context = self._new_context(is_decode=tokens == 1)
            if context is None:
                raise ArtefactError("TensorRT can't create an execution context.")
            context.set_optimization_profile_async(profile, self._cuda.stream)
            context.set_device_memory(self._scratch.address, self._scratch_bytes)
            self._contexts[key] = context
        context = self._contexts[key]
        for name in self.names(inputs=True):
            shape = self.shape(name)
            if -1 in shape:
                free = iter((batch, tokens))  # B, then T where there is one
                fixed = tuple(next(free) if size == -1 else size for size in shape)
                if not context.set_input_shape(name, fixed):
                    raise ArtefactError(f"the plan takes no {fixed} for {name}.")
        return context

    def _new_context(self, *, is_decode: bool) -> Any:
        """Return a context without memory of its own; None where TensorRT can't create one."""
        if self._jit is not None:
            return self.engine.create_execution_context(self._jit.settings(is_decode=is_decode))
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        return self.engine.create_execution_context(strategy)

    def close(self) -> None:
        """Drop graphs, contexts and the plan; keep what was compiled on the way."""
        self._cuda.synchronize()
        if self._jit is not None:
            self._jit.save()
            self._jit = None
        for graph in self._graphs.values():
            self._cuda.destroy_graph(graph)
        self._graphs.clear()
        self._contexts.clear()
        self.engine = None


def load_module(name: str) -> Any:
    """Return TensorRT's Python module."""
    return import_module(name)
