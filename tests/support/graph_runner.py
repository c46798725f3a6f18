"""Runs an exported ONNX file in ONNX Runtime, carrying its state from call to call."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

# Operators that move values and change none: what they give needs no rounding.
MOVES = {"Concat", "Expand", "Gather", "GatherElements", "Reshape", "Slice", "Split"}
MOVES |= {"TensorScatter", "Transpose", "Unsqueeze"}
NUMPY = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int8)": np.int8}


class GraphRunner:
    """State of `batch` sequences over one graph."""

    def __init__(self, path: Path, batch: int, cache: int, weights: dict[str, Any] | None = None):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.batch = batch
        self.past = np.zeros(batch, np.int64)
        self.weights = weights or {}
        self.has_lengths = any(i.name == "lengths" for i in self.session.get_inputs())
        sizes = {"B": batch, "S": cache}
        self.state = {
            item.name: np.zeros([sizes.get(s, s) for s in item.shape], NUMPY[item.type])
            for item in self.session.get_inputs()
            if item.name not in {"input_ids", "lengths", "past", *self.weights}
        }

    def feed(self, chunks: list[list[int]], pad_to: int = 0) -> np.ndarray:
        """Feed each sequence its chunk, padded to one width; return [batch, vocab]."""
        width = max(pad_to, *(len(chunk) for chunk in chunks))
        ids = np.array([[*chunk, *[7] * (width - len(chunk))] for chunk in chunks], np.int64)
        lengths = np.array([len(chunk) for chunk in chunks], np.int64)
        inputs = {"input_ids": ids, "past": self.past, **self.state, **self.weights}
        if self.has_lengths:
            inputs["lengths"] = lengths
        else:
            assert (lengths == width).all(), "this graph takes no padding"
        names = [item.name for item in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(None, inputs), strict=True))
        for name in self.state:
            kind, _, index = name.rpartition("_")
            self.state[name] = outputs[f"{kind}_out_{index}"]
        self.past = self.past + lengths
        return outputs["logits"][:, 0]


def as_float32(path: Path, target: Path) -> Path:
    """Rewrite a bfloat16 graph's element types to float32 and nothing else."""
    model = onnx.load(str(path))
    bf16, f32 = TensorProto.BFLOAT16, TensorProto.FLOAT
    graph = model.graph
    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type == bf16:
            value.type.tensor_type.elem_type = f32
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "output_dtype") and attribute.i == bf16:
                attribute.i = f32
    for tensor in graph.initializer:
        if tensor.data_type == bf16:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, str(target))
    return target


def as_rounded_bfloat16(path: Path, target: Path) -> Path:
    """Rewrite a bfloat16 graph to compute in float32 and round each result to bfloat16.

    So does a kernel that accumulates in float32; ONNX Runtime has hardly any for bfloat16.
    """
    inferred = onnx.shape_inference.infer_shapes(onnx.load(str(path))).graph
    values = [*inferred.value_info, *inferred.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    model = onnx.load(str(as_float32(path, target)))
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        for index, name in enumerate(node.output):
            if types[name] == TensorProto.BFLOAT16 and node.op_type not in MOVES:
                exact, short = f"{name}/exact", f"{name}/bf16"
                node.output[index] = exact
                nodes.append(helper.make_node("Cast", [exact], [short], to=TensorProto.BFLOAT16))
                nodes.append(helper.make_node("Cast", [short], [name], to=TensorProto.FLOAT))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(target))
    return target
