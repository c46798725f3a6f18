"""TensorRT's words for why it refuses a graph: the node of ours, what it says, what that means."""

import re
from pathlib import Path

import onnx

NO_KERNEL = "not supported by a dedicated kernel"
MEANINGS = {
    # Source: tried with tensorrt-rtx 1.7.1.116, 2026-11, on a slice of the 9B, for 8.0, 8.6, 8.9.
    NO_KERNEL: "no attention kernel of TensorRT's decodes over so long a cache; give a smaller "
    "--max-seq-len (of Nemotron-Nano-9B-v2 28544 and less compile)",
    "must have type Float, Half, or BFloat16": "the native KV cache takes 16 bit values only",
    "HW-specific datatypes": "the target GPU has no arithmetic of that type",
    "No implementation for attention": "no fused attention kernel fits these heads",
    "out of memory": "the compiler ran out of memory",
    "must match": "the graph does not fit together: a tensor has another shape than its reader",
}
# A type that a refusal names without a node -> how the graph stores it.
TYPES = {"fp8_e4m3": onnx.TensorProto.FLOAT8E4M3FN, "int8": onnx.TensorProto.INT8}
# What the library says on every machine without a driver, and around every refusal: no reason.
NOISE = (
    "CUDA driver version is insufficient",
    "catchCudaError",
    "--- Begin",
    "--- End",
    "Node name:",
    "Invalid Node",
    "While parsing node",
    "In function parseNode",
)
NODE = re.compile(r"node_of_([\w./]+)|\[\w+ -> \"(.+?)\"\]")
PLACE = re.compile(r"^\w+\.cpp:\d+: (?:ERROR: )?(?:\w+\.cpp:\d+ In function )?| In \w+ at /\S+:\d+")
MAX_LINES = 4


def explain(messages: list[str], graph: Path) -> str:
    """Return which node of `graph` is refused, TensorRT's own words, and what we know of them."""
    lines = [line.strip() for message in messages for line in message.splitlines()]
    telling = [line for line in lines if line and not any(noise in line for noise in NOISE)]
    words = " ".join(dict.fromkeys(PLACE.sub("", line) for line in (telling or lines)[:MAX_LINES]))
    node = _named(lines) or _first_of_type(words, graph)
    text = f"at node {node}: {words}" if node else words
    known = [meaning for key, meaning in MEANINGS.items() if key in text]
    return f"{text} That is: {'; '.join(known)}." if known else text


def _named(lines: list[str]) -> str | None:
    """Return the first node of ours that the messages name."""
    for line in lines:
        if match := NODE.search(line):
            return match[1] or match[2]
    return None


def _first_of_type(words: str, graph: Path) -> str | None:
    """Return the first node that reads a tensor of a type that the words name."""
    kinds = [kind for name, kind in TYPES.items() if name in words]
    if not kinds or not graph.is_file():
        return None
    model = onnx.load(str(graph), load_external_data=False).graph
    of_type = {
        value.name for value in model.input if value.type.tensor_type.elem_type == kinds[0]
    } | {tensor.name for tensor in model.initializer if tensor.data_type == kinds[0]}
    for node in model.node:
        if of_type & set(node.input):
            return f"{node.output[0]} ({node.op_type} of {next(iter(of_type & set(node.input)))})"
    return None
