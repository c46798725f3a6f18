"""Stands in for TensorRT whose kernels run in any order that their dependence allows.

A plan is a list of kernels, each a few nodes of the graph. An execution takes a random topological
order of them, not the listed one, and a kernel reads and writes memory in its turn: what is written
over too early is read, and shows in the logits. As real plans have it
(docs/internals/tensorrt/state.md), a decode step reads and writes a layer's state in one kernel
together with what the layer's output is made of; a prompt call has each node as a kernel of its
own, so that a state may be written last of all.
"""

import heapq
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from nemotrt.engines.backends.tensorrt.compile.layer_report import Layer, LayerReport, Tensor
from support import tensorrt_stand_in as stand_in
from support.graph_runner import as_float32

KINDS = ("conv", "ssm")
Order = list[int]


class Kernel:
    """Some nodes of a graph, run by ONNX Runtime."""

    def __init__(self, model: onnx.ModelProto, numbers: Sequence[int], types: dict[str, int]):
        graph = model.graph
        nodes = [graph.node[number] for number in sorted(numbers)]
        made = [name for node in nodes for name in node.output if name]
        read = dict.fromkeys(name for node in nodes for name in node.input if name)
        constants = [item for item in graph.initializer if item.name in read]
        known = {*made, *(item.name for item in constants)}
        self.inputs = [name for name in read if name not in known]
        self.outputs = made
        part = helper.make_graph(
            nodes,
            "kernel",
            [helper.make_tensor_value_info(name, types[name], None) for name in self.inputs],
            [helper.make_tensor_value_info(name, types[name], None) for name in made],
            constants,
        )
        own = helper.make_model(part, opset_imports=model.opset_import)
        own.ir_version = model.ir_version
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(own.SerializeToString(), options)

    def run(self, values: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Return its outputs for its inputs."""
        found: list[np.ndarray] = self.session.run(None, values)
        return found


def random_order(waits: Sequence[set[int]], rng: np.random.Generator) -> Order:
    """Return a random topological order of what waits for others.

    Each has a random rank, and of those that are ready the first by rank runs: one may wait until
    all that does not hang on it is done.
    """
    rank = rng.permutation(len(waits)).tolist()
    left = [len(own) for own in waits]
    after: list[list[int]] = [[] for _ in waits]
    for number, own in enumerate(waits):
        for one in own:
            after[one].append(number)
    ready = [(rank[number], number) for number, count in enumerate(left) if not count]
    heapq.heapify(ready)
    found = []
    while ready:
        _, number = heapq.heappop(ready)
        found.append(number)
        for other in after[number]:
            left[other] -= 1
            if not left[other]:
                heapq.heappush(ready, (rank[other], other))
    return found


class Kernels:
    """A graph as kernels; where `is_fused`, all that touches one state is one kernel."""

    def __init__(self, path: Path, *, is_fused: bool) -> None:
        model = onnx.shape_inference.infer_shapes(onnx.load(str(path)))
        graph = model.graph
        values = [*graph.value_info, *graph.input, *graph.output]
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.shapes = {
            value.name: ",".join(
                str(dim.dim_value or 1) for dim in value.type.tensor_type.shape.dim
            )
            for value in values
        }
        self.parents = self._parents(graph.node)
        groups = self._fused(graph) if is_fused else []
        alone = set(range(len(graph.node))).difference(*groups)
        self.kernels = [Kernel(model, group, types) for group in [*groups, *([n] for n in alone)]]
        writer = {name: i for i, kernel in enumerate(self.kernels) for name in kernel.outputs}
        self.waits = [
            {writer[name] for name in kernel.inputs if name in writer} for kernel in self.kernels
        ]

    @staticmethod
    def _parents(nodes: Sequence[Any]) -> list[set[int]]:
        """Return the nodes that each node reads of."""
        writer = {name: i for i, node in enumerate(nodes) for name in node.output}
        return [{writer[name] for name in node.input if name in writer} for node in nodes]

    def _fused(self, graph: Any) -> list[set[int]]:
        """Return the nodes of each state's kernel.

        Those are its readers, its writer, what makes values as large for them, and all between.
        """
        above: list[set[int]] = []
        for parents in self.parents:  # ONNX lists nodes in an order that runs
            above.append(parents.union(*(above[one] for one in parents)))
        groups = []
        for name in (value.name for value in graph.input):
            kind, _, layer = name.rpartition("_")
            if kind not in KINDS:
                continue
            group, before = (
                set(),
                {
                    i
                    for i, node in enumerate(graph.node)
                    if name in node.input or f"{kind}_out_{layer}" in node.output
                },
            )
            while group != before:
                group = set(before)
                read = {given for i in group for given in graph.node[i].input}
                before |= {
                    i
                    for i, node in enumerate(graph.node)
                    if any(made in read and self._is_large(made, name) for made in node.output)
                    or (group & above[i] and any(i in above[end] for end in group))
                }
            groups.append(group)
        return groups

    def _is_large(self, name: str, state: str) -> bool:
        sizes = [
            math.prod(map(int, self.shapes[one].split(",")[1:]))
            for one in (name, state)
            if self.shapes.get(one)
        ]
        return len(sizes) == 2 and sizes[0] >= sizes[1]

    def order(self, rng: np.random.Generator) -> Order:
        """Return a random topological order."""
        return random_order(self.waits, rng)

    def layers(self, profile: int) -> Iterator[Layer]:
        """Yield the layers of the report that a compiler would write of them."""
        for number, kernel in enumerate(self.kernels):
            sides = (
                tuple(Tensor(name, self.shapes[name], "Float") for name in side)
                for side in (kernel.inputs, kernel.outputs)
            )
            yield Layer(f"k{number}_myl{profile}_0", "kgen", profile, *sides, (), "")


class AnyOrder(stand_in.RtxTensorRT):
    """The module; `is_fused` is of decode steps, `rng` draws the orders."""

    rotates = True
    KEPT: ClassVar[dict[tuple[bytes, bool], Kernels]] = {}

    def __init__(self, *arguments: Any, is_fused: bool = True, seed: int = 0) -> None:
        super().__init__(*arguments)
        self.rng = np.random.default_rng(seed)
        self.profiles_kernels = [self._kernels(is_fused), self._kernels(False)]

    def _kernels(self, is_fused: bool) -> Kernels:
        """Return the graph's kernels; the last graph's are kept: they take seconds to load."""
        key = self.graph.read_bytes(), is_fused
        if key not in self.KEPT:
            if any(kept[0] != key[0] for kept in self.KEPT):
                self.KEPT.clear()
            with TemporaryDirectory() as folder:
                shutil.copytree(self.graph.parent, folder, dirs_exist_ok=True)
                path = as_float32(Path(folder) / self.graph.name, Path(folder) / "float32.onnx")
                self.KEPT[key] = Kernels(path, is_fused=is_fused)
        return self.KEPT[key]

    @property
    def report(self) -> LayerReport:
        """What the compiler would say of the plan."""
        layers = [
            layer
            for profile, kernels in enumerate(self.profiles_kernels)
            for layer in kernels.layers(profile)
        ]
        return LayerReport(tuple(layers), (0, 0))

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        return Runtime(self)


class Runtime(stand_in.Runtime):
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        return Engine(self.module)


class Engine(stand_in.ICudaEngine):
    def create_execution_context(self, strategy: Any = None) -> Any:
        return Context(self, strategy)


class Context(stand_in.IExecutionContext):
    def _run(self, arrays: dict[str, np.ndarray]) -> None:
        module = self.engine.module
        kernels = module.profiles_kernels[self.profile]
        values: dict[str, np.ndarray] = {}
        for number in kernels.order(module.rng):
            kernel = kernels.kernels[number]
            given = {}
            for name in kernel.inputs:
                is_state = name in self.engine.outputs and arrays[name].dtype == np.float32
                value = arrays[name] if name in self.engine.inputs or is_state else values[name]
                is_number = value.dtype.kind in "biu" or value.dtype == np.float32
                given[name] = np.array(value) if is_number else value.astype(np.float32)
            for name, value in zip(kernel.outputs, kernel.run(given), strict=True):
                values[name] = value
                if name in self.engine.outputs:
                    arrays[name][...] = value.astype(arrays[name].dtype)
