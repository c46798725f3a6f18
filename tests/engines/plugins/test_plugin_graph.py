"""The graph with plugins: its operators carry bodies, so ONNX Runtime and TensorRT both take it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.backends.tensorrt.compile import compiler
from nemotrt.engines.backends.tensorrt.graph import export as graph_export
from nemotrt.engines.backends.tensorrt.graph.options import MambaLayers
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.graph.onnx_graph import GRAPH_FILE
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from support import reference
from support.graph_runner import GraphRunner, as_float32
from support.random_models import ODD, models

LIMITS = Limits(max_batch_size=4, max_seq_len=64, chunk_tokens=16)


def runner(
    source: Path, folder: Path, mamba: MambaLayers, precision: Precision = Precision.BF16
) -> GraphRunner:
    """Export, and open in ONNX Runtime with the checkpoint's weights."""
    folder.mkdir()
    checkpoint = open_checkpoint(source)
    bound = graph_export.export(checkpoint, folder, LIMITS, precision, mamba=mamba)
    onnx.checker.check_model(str(folder / GRAPH_FILE))
    weights: dict[str, Any] = {}
    for name, weight in bound.items():
        values = checkpoint[weight.tensor].map()
        values = values.T if weight.is_transposed else values
        is_float = weight.dtype == "BF16"
        weights[name] = np.ascontiguousarray(values.astype(np.float32) if is_float else values)
    path = as_float32(folder / GRAPH_FILE, folder / "float32.onnx")
    return GraphRunner(path, 2, LIMITS.max_seq_len, weights)


def test_each_mamba_layer_is_two_nodes_and_the_bodies_are_there_once(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(TINY_MODELS["tiny"])
    for mamba in MambaLayers:
        (tmp_path / mamba).mkdir()
        graph_export.export(checkpoint, tmp_path / mamba, LIMITS, Precision.BF16, mamba=mamba)
    found = onnx.load(tmp_path / "plugin" / GRAPH_FILE, load_external_data=False)
    native = onnx.load(tmp_path / "native" / GRAPH_FILE, load_external_data=False)
    count = checkpoint.config.num_mamba_layers
    ours = [node.op_type for node in found.graph.node if node.domain == "nemotrt"]
    assert ours == ["CausalConv", "SsdScan"] * count
    assert [body.name for body in found.functions] == ["CausalConv", "SsdScan"]
    for side in ("input", "output"):
        assert {x.name: x.type.tensor_type.elem_type for x in getattr(found.graph, side)} == {
            x.name: x.type.tensor_type.elem_type for x in getattr(native.graph, side)
        }
    # in_proj is cut once, for the gate; nothing else of a Mamba layer is
    assert sum(node.op_type == "Split" for node in found.graph.node) == count
    assert {node.op_type for node in found.graph.node} & {"Conv", "CumSum", "Softplus"} == set()


@settings(max_examples=10, deadline=None)
@given(model=models(ODD, "M-*"), data=st.data())
def test_random_models_give_what_the_native_graph_gives(
    model: Any, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Bit for bit, padded chunks and single tokens; and transformers' logits."""
    folder = tmp_path_factory.mktemp("random")
    source = reference.save(model, folder / "c")
    native, plugin = (runner(source, folder / mamba, mamba) for mamba in MambaLayers)
    fed: list[list[int]] = [[], []]
    for _ in range(3):
        lengths = [data.draw(st.integers(1, 16)) for _ in fed]
        top = model.config.vocab_size - 1
        chunks = [[data.draw(st.integers(0, top)) for _ in range(n)] for n in lengths]
        expected, found = native.feed(chunks), plugin.feed(chunks)
        np.testing.assert_array_equal(found, expected)
        for tokens, chunk in zip(fed, chunks, strict=True):
            tokens += chunk
    for name, state in native.state.items():
        np.testing.assert_array_equal(plugin.state[name], state)
    for tokens, logits in zip(fed, found, strict=True):
        np.testing.assert_allclose(
            logits, reference.logits(model, tokens)[-1], atol=2e-3, rtol=1e-3
        )


@pytest.mark.parametrize("name", ["int8-wo", "int8-sq"])
def test_quantized_linears_around_plugins(
    name: str, quantized_tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    source, precision = quantized_tiny(name), Precision(name)
    native, plugin = (runner(source, tmp_path / x, x, precision) for x in MambaLayers)
    chunks = [list(range(50, 66)), [7, 8, 9]]
    np.testing.assert_array_equal(plugin.feed(chunks), native.feed(chunks))


@pytest.mark.slow  # the build on a GPU host's stand-in compiles the bodies too
def test_without_our_plugins_tensorrt_compiles_the_bodies(tmp_path: Path) -> None:
    """The real compiler, for the A10G: the same file is a native plan where no plugin is known."""
    checkpoint = open_checkpoint(TINY_MODELS["tiny"])
    graph_export.export(checkpoint, tmp_path, LIMITS, Precision.BF16, mamba=MambaLayers.PLUGIN)
    found = compiler.compile_plan(tmp_path, LIMITS, "8.6")
    assert (tmp_path / compiler.PLAN_FILE).stat().st_size > 100_000
    for profile in (0, 1):
        assert any(
            "ssm_out_0" in {x.name for x in k.outputs} for k in found.report.kernels(profile)
        )
