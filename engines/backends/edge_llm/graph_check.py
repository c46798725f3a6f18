"""Whether an exported graph is the checkpoint: its plugins, its quantized linears, its weights.

The exporter drops what it does not know without a word (INT8 weight-only codes become weights), so
what it wrote is compared with what it was given, value by value.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.model_config import LayerKind
from nemotrt.engines.model.numerics import SAFETENSORS, NumberFormat, Precision
from nemotrt.engines.model.tensor_names import blocks, linear_names, model_names
from nemotrt.errors import ArtefactError

DOMAIN = "trt_edgellm"
PREFIX = "_model."  # the exporter's, before the checkpoint's names
CODE_TYPES = {word: item.onnx for word, item in SAFETENSORS.items() if item.is_code}
MAX_REPORTED = 5
FP16_MAX = np.float32(65504.0)
MAX_SCALE_ERROR = 0.01  # the exporter rounds FP8 scales to float16; E4M3's own steps are 6 to 12 %


def check_graph(folder: Path, checkpoint: Checkpoint) -> int:
    """Return how many linears of the graph in `folder` are quantized.

    Raises:
        ArtefactError: a plugin is missing or set otherwise than the model, a linear is not
            quantized as the checkpoint is, or a weight has other values.
    """
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    graph = _Graph(model, folder)
    faults = [*_plugin_faults(graph, checkpoint)]
    num_quantized = 0
    for name in (*linear_names(checkpoint.config), model_names(checkpoint.config).lm_head):
        is_quantized = not checkpoint[name].is_float
        num_quantized += is_quantized
        faults += _linear_faults(graph, checkpoint, name, is_quantized)
    if faults:
        more = f", and {len(faults) - MAX_REPORTED} more" if len(faults) > MAX_REPORTED else ""
        raise ArtefactError(
            f"Edge-LLM's export is not {checkpoint.path}: {'; '.join(faults[:MAX_REPORTED])}{more}."
        )
    return num_quantized


class _Graph:
    """A graph by names: initializers, and which node makes or takes a value."""

    def __init__(self, model: Any, folder: Path) -> None:
        self.nodes = list(model.graph.node)
        self.folder = folder
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.maker = {output: node for node in self.nodes for output in node.output}
        self.takers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.takers.setdefault(name, []).append(node)

    def values(self, name: str) -> npt.NDArray[Any]:
        """Return an initializer's raw elements; those in the external file are mapped."""
        tensor = self.weights[name]
        places = {entry.key: entry.value for entry in tensor.external_data}
        if not places:
            return onnx.numpy_helper.to_array(tensor)  # type: ignore[no-any-return]
        path = self.folder / Path(places["location"]).name
        offset, length = int(places.get("offset", 0)), int(places["length"])
        return np.memmap(path, np.uint8, "r", offset=offset, shape=(length,))


def _plugin_faults(graph: _Graph, checkpoint: Checkpoint) -> Iterator[str]:
    """Yield what is wrong with the plugins' number and attributes."""
    config = checkpoint.config
    mamba = config.mamba
    assert mamba is not None  # support.check()
    is_fp8_cache = checkpoint.quant.has_fp8_cache
    wanted: dict[str, tuple[int, dict[str, int]]] = {
        "causal_conv1d": (
            config.num_mamba_layers,
            {"groups": mamba.conv_dim, "padding": mamba.conv_kernel - 1},
        ),
        "update_ssm_state": (
            config.num_mamba_layers,
            {"ngroups": mamba.num_groups, "dt_softplus": 1},
        ),
        "AttentionPlugin": (
            config.num_attention_layers,
            {
                "num_q_heads": config.num_attention_heads,
                "num_kv_heads": config.num_key_value_heads,
                "head_size": config.head_dim,
                "enable_fp8_kv_cache": int(is_fp8_cache),
            },
        ),
    }
    for kind, (count, attributes) in wanted.items():
        nodes = [n for n in graph.nodes if n.domain == DOMAIN and n.op_type == kind]
        if len(nodes) != count:
            yield f"{len(nodes)} {kind} for {count} layers"
        for node in nodes:
            found = {attribute.name: attribute for attribute in node.attribute}
            for name, value in attributes.items():
                if name not in found or found[name].i != value:
                    yield f"{kind} {node.name} has not {name} {value}"
    if is_fp8_cache:
        yield from _cache_scale_faults(graph, checkpoint)


def _cache_scale_faults(graph: _Graph, checkpoint: Checkpoint) -> Iterator[str]:
    """Yield attention plugins whose scales are not the checkpoint's."""
    attention = (b for b in blocks(checkpoint.config) if b.kind is LayerKind.ATTENTION)
    nodes = [n for n in graph.nodes if n.op_type == "AttentionPlugin"]
    for block, node in zip(attention, nodes, strict=False):
        (found,) = (list(a.floats) for a in node.attribute if a.name == "qkv_scales")
        names = block.name("k_proj.k_scale"), block.name("v_proj.v_scale")
        wanted = [float(checkpoint.floats(name).reshape(())) for name in names]
        if not np.allclose(found[1:], wanted, rtol=1e-6):
            yield f"{node.name} has cache scales {found[1:]}, the checkpoint {wanted}"


def _linear_faults(
    graph: _Graph, checkpoint: Checkpoint, name: str, is_quantized: bool
) -> Iterator[str]:
    """Yield what is wrong with one linear: its weight's type and values, its Q/DQ pairs."""
    weight = PREFIX + name
    if weight not in graph.weights:
        yield f"{name} is missing"
        return
    ref = checkpoint[name]
    data_type = graph.weights[weight].data_type
    if data_type != CODE_TYPES.get(ref.dtype, NumberFormat.FP16.onnx):
        yield f"{name} is {ref.dtype} in the checkpoint, type {data_type} in the graph"
        return
    if not _has_equal_values(graph.values(weight), ref.map(), is_quantized):
        yield f"{name} has other values"
    if not is_quantized:
        return
    # the exporter keeps equal scales once, so a scale's name says nothing
    scale_name = graph.takers[weight][0].input[1] if _is_dequantized(graph, weight) else ""
    if scale_name not in graph.weights:
        yield f"{name} is quantized, and used without its scale"
        return
    scale = graph.values(scale_name)
    scale = scale.view(np.float16 if checkpoint.quant.precision is Precision.FP8 else np.float32)
    wanted = checkpoint.floats(f"{name}_scale").reshape(-1)
    if not np.allclose(scale.astype(np.float32).reshape(-1), wanted, rtol=MAX_SCALE_ERROR, atol=0):
        yield f"{name} has other scales: {scale.reshape(-1)[0]:g}, in the checkpoint {wanted[0]:g}"


def _has_equal_values(found: npt.NDArray[Any], stored: npt.NDArray[Any], is_code: bool) -> bool:
    """Whether a graph's weight is the stored one: the same codes, or the floats in 16 bits."""
    if is_code:
        return np.array_equal(found.view(np.uint8).reshape(-1), stored.view(np.uint8).reshape(-1))
    halves = found.view(np.float16).reshape(stored.shape)
    for start in range(0, len(stored), 1024):
        floats = stored[start : start + 1024].astype(np.float32)
        if np.abs(floats).max(initial=0) > FP16_MAX:
            return False
        if not np.array_equal(halves[start : start + 1024], floats.astype(np.float16)):
            return False
    return True


def _is_dequantized(graph: _Graph, weight: str) -> bool:
    """Whether a weight and the input that it multiplies both pass through Q/DQ."""
    users = graph.takers.get(weight, [])
    if not users or any(node.op_type != "DequantizeLinear" for node in users):
        return False
    for output in (node.output[0] for node in users):
        for product in _products(graph, output):
            sources = [_origin(graph, name) for name in product.input[:2]]
            kinds = [node.op_type for node in sources if node is not None]
            if kinds != ["DequantizeLinear", "DequantizeLinear"]:
                return False
    return True


def _products(graph: _Graph, name: str) -> Iterator[Any]:
    """Yield the matrix products that take a value, through casts."""
    for node in graph.takers.get(name, []):
        if node.op_type in ("Cast", "Transpose"):
            yield from _products(graph, node.output[0])
        else:
            yield node


def _origin(graph: _Graph, name: str) -> Any:
    """Return the node that makes a value, behind casts."""
    node = graph.maker.get(name)
    while node is not None and node.op_type in ("Cast", "Transpose"):
        node = graph.maker.get(node.input[0])
    return node
