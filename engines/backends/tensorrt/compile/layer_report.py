"""What the compiler made of the graph: its kernels, parsed from its own words.

With detailed verbosity TensorRT for RTX logs every layer of the engine, both profiles one after the
other. That needs no driver. Ordinary TensorRT has a GPU, so its EngineInspector is asked, which
writes the same lines but for the constants (as published in NVIDIA/TensorRT#4397, 10.x; not tried).
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: \[(.*?)\],.*?Datatype: (\w+)")
FIELDS = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"(?:Constants: \[(?P<constants>.*?)\], )?Outputs: \[(?P<outputs>.*?)\], "
    r"TacticName: (?P<tactic>.*?),.*?Metadata: (?P<metadata>.*)"
)
PROFILE = re.compile(r" \[profile (\d+)\]")
GRAPH = re.compile(r"_myl(\d+)_\d+$")
NODE = re.compile(r"\[ONNX Layer: node_of_(.*?)\]")
WEIGHT = ".weight"  # in the names of the graph's constants; the compiler's own have other names
BOOKKEEPING = ("wait", "signal", "shape_call", "allocate", "deallocate")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a kernel; `dtype` is the compiler's word, such as BFloat16."""

    name: str
    shape: str
    dtype: str


INT4 = "Int4"  # of constants, which have the compiler's own names: it transposes them


@dataclass(frozen=True, slots=True)
class Layer:
    """One kernel (or one bookkeeping step) of one optimization profile."""

    name: str
    kind: str  # gemm, runtime_fusion, kgen, correlation, ...
    profile: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[str, ...]  # the ONNX nodes that went into it, by their first output
    tactic: str
    weights: tuple[Tensor, ...] = ()  # the graph's constants that the plan holds for it

    @property
    def is_kernel(self) -> bool:
        """Whether it computes or moves data on the GPU."""
        return self.kind not in BOOKKEEPING


@dataclass(frozen=True, slots=True)
class LayerReport:
    """The layers in order, and the bytes of activations that each profile needs."""

    layers: tuple[Layer, ...]
    activation_bytes: tuple[int, ...]

    def kernels(self, profile: int) -> list[Layer]:
        """Return the kernels of one profile, in order."""
        return [layer for layer in self.layers if layer.is_kernel and layer.profile == profile]

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"schema_version": 1, **asdict(self)}


def parse_layers(lines: Sequence[str]) -> tuple[Layer, ...]:
    """Return the layers of the builder's log, one per line.

    Raises:
        ValueError: a line is not of the form that this version of TensorRT writes.
    """
    return tuple(_parse(line) for line in lines)


def read_report(value: dict[str, Any]) -> LayerReport:
    """Return the report that `as_json` wrote."""
    layers = []
    for item in value["layers"]:
        inputs, outputs = (
            tuple(Tensor(**tensor) for tensor in item[side]) for side in ("inputs", "outputs")
        )
        weights = tuple(Tensor(**tensor) for tensor in item.get("weights", ()))
        nodes = tuple(item["nodes"])
        rest = {"inputs": inputs, "outputs": outputs, "nodes": nodes, "weights": weights}
        layers.append(Layer(**(item | rest)))
    return LayerReport(tuple(layers), tuple(value["activation_bytes"]))


def _parse(line: str) -> Layer:
    """Return one line's layer; " [profile 1]" is cut from every name."""
    match = FIELDS.match(line)
    if match is None:
        raise ValueError(f"not a layer of TensorRT's log: {line[:200]}")
    graph = GRAPH.search(match["name"])
    found = PROFILE.search(line)
    profile = int(graph[1]) if graph else int(found[1]) if found else 0
    return Layer(
        name=PROFILE.sub("", match["name"]),
        kind=match["kind"],
        profile=profile,
        inputs=_tensors(match["inputs"]),
        outputs=_tensors(match["outputs"]),
        nodes=tuple(dict.fromkeys(NODE.findall(PROFILE.sub("", match["metadata"])))),
        tactic=match["tactic"],
        weights=tuple(
            x for x in _tensors(match["constants"] or "") if WEIGHT in x.name or x.dtype == INT4
        ),
    )


def _tensors(text: str) -> tuple[Tensor, ...]:
    """Return the tensors of one side of a layer."""
    text = PROFILE.sub("", text)
    return tuple(Tensor(name, shape, dtype) for name, shape, dtype in TENSOR.findall(text))
