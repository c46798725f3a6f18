"""A small ONNX graph builder that streams its weights to one external file as they come."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from nemotrt.engines.model.numerics import NumberFormat

OPSET = 24  # TensorScatter, Attention with a cache, RMSNormalization, RotaryEmbedding
IR_VERSION = 11
MICROSOFT = "com.microsoft"
GRAPH_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
NUM_LOGITS = "num_logits"  # the input that says how many rows of logits are wanted
INLINE_BYTES = 1024  # smaller constants stay inside the graph file
F32 = int(TensorProto.FLOAT)
ALIGNMENT = 4096  # a page, so that runtimes can map the weights


class OnnxGraph:
    """Nodes, inputs, outputs and constants of one graph, written to `folder`."""

    def __init__(self, name: str, folder: Path) -> None:
        """Start an empty graph called `name`; large constants go to `folder` at once."""
        self.name = name
        self.folder = folder
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.functions: dict[str, onnx.FunctionProto] = {}  # bodies of other domains' operators
        self.weights_bytes = 0
        self._counts: dict[str, int] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def _new_name(self, prefix: str) -> str:
        """Return a fresh value name."""
        number = self._counts[prefix] = self._counts.get(prefix, -1) + 1
        return f"{prefix}_{number}"

    def _new_names(self, prefix: str, count: int) -> list[str]:
        """Return fresh value names."""
        return [self._new_name(prefix) for _ in range(count)]

    def op(self, kind: str, *inputs: str, name: str = "", domain: str = "", **attrs: Any) -> str:
        """Append a node with one output, called `name` if given, and return the output."""
        return self.ops(
            kind, *inputs, names=[name or self._new_name(kind)], domain=domain, **attrs
        )[0]

    def ops(
        self, kind: str, *inputs: str, names: Sequence[str], domain: str = "", **attrs: Any
    ) -> Sequence[str]:
        """Append a node with the outputs `names` and return them."""
        self.nodes.append(helper.make_node(kind, list(inputs), list(names), domain=domain, **attrs))
        return names

    def two(self, kind: str, *inputs: str, **attrs: Any) -> tuple[str, str]:
        """Append a node with two outputs and return them."""
        first, second = self.ops(kind, *inputs, names=self._new_names(kind, 2), **attrs)
        return first, second

    def split(self, value: str, sizes: Sequence[int]) -> list[str]:
        """Append a Split of the last axis into `sizes`."""
        names = self._new_names("Split", len(sizes))
        return list(self.ops("Split", value, self.ints(*sizes), names=names, axis=-1))

    def split_rows(self, value: str, counts: str, num_parts: int) -> list[str]:
        """Append a Split of the first axis by computed `counts`, of which some may be 0."""
        names = self._new_names("Split", num_parts)
        return list(self.ops("Split", value, counts, names=names, axis=0))

    def ints(self, *values: int) -> str:
        """Return a constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float, dtype: type[np.generic] = np.float32) -> str:
        """Return a constant scalar."""
        return self.constant(np.array(value, dtype))

    def constant(self, array: npt.NDArray[Any], name: str = "") -> str:
        """Return a constant; equal small ones are shared, large ones go to the weights file."""
        array = np.require(array, requirements="C")  # keeps 0-d arrays 0-d
        if array.nbytes > INLINE_BYTES:
            return self._external(array, name or self._new_name("weight"))
        key = (array.dtype.str + array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = name or self._new_name("constant")
            self.initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def packed_int4(self, codes: npt.NDArray[np.int8], name: str) -> str:
        """Return int4 codes as a constant: two in a byte, the first in the lower half."""
        flat = codes.reshape(-1)
        pairs = (flat[::2] & 0x0F | flat[1::2] << 4).view(np.uint8)
        return self._external(pairs, name, NumberFormat.INT4.onnx, codes.shape)

    def _external(
        self,
        array: npt.NDArray[Any],
        name: str,
        kind: int | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> str:
        """Append `array` to the weights file and register it as an initializer.

        `kind` and `shape` are given where its elements share bytes.
        """
        offset = math.ceil(self.weights_bytes / ALIGNMENT) * ALIGNMENT
        with (self.folder / WEIGHTS_FILE).open("r+b" if self.weights_bytes else "wb") as file:
            file.seek(offset)
            # not array.tofile: its OSError for a full disk has no errno
            file.write(array.reshape(-1).view(np.uint8).data)
        tensor = TensorProto(
            name=name,
            data_type=kind or helper.np_dtype_to_tensor_dtype(array.dtype),
            dims=shape or array.shape,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (
            ("location", WEIGHTS_FILE),
            ("offset", str(offset)),
            ("length", str(array.nbytes)),
        ):
            tensor.external_data.add(key=key, value=value)
        self.initializers.append(tensor)
        self.weights_bytes = offset + array.nbytes
        return name

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        """Declare a graph input and return its name."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def optional_input(self, name: str, default: npt.NDArray[Any]) -> str:
        """Declare a graph input that a caller may leave out, and return its name."""
        self.initializers.append(numpy_helper.from_array(default, name))
        dtype = helper.np_dtype_to_tensor_dtype(default.dtype)
        return self.input(name, dtype, default.shape)

    def output(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        """Declare a graph output and return its name."""
        self.outputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def save(self) -> Path:
        """Write the graph file beside its weights and return its path."""
        graph = helper.make_graph(
            self.nodes, self.name, self.inputs, self.outputs, self.initializers
        )
        domains = {node.domain for node in self.nodes} - {""}
        opsets = [
            helper.make_opsetid("", OPSET),
            *(helper.make_opsetid(d, 1) for d in sorted(domains)),
        ]
        model = helper.make_model(
            graph,
            functions=list(self.functions.values()),
            opset_imports=opsets,
            ir_version=IR_VERSION,
        )
        model.producer_name = "nemotrt"
        path = self.folder / GRAPH_FILE
        path.write_bytes(model.SerializeToString(deterministic=True))
        return path
