"""TensorRT's own ONNX parser over a graph with plugins."""

import subprocess
import sys
import textwrap
from pathlib import Path

import onnx

from nemotrt.engines.backends.tensorrt.graph import export as graph_export
from nemotrt.engines.backends.tensorrt.graph.options import MambaLayers
from nemotrt.engines.backends.tensorrt.graph.plugin_fields import CausalConvFields
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.graph.onnx_graph import GRAPH_FILE
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS

PARSE = """
    import json, sys
    import tensorrt_rtx_bindings as trt

    sys.modules["tensorrt"] = trt
    from pathlib import Path
    from nemotrt.engines.backends.tensorrt.plugins import registration

    is_registered = sys.argv[2] == "registered"
    if is_registered:
        Path("image").write_bytes(b"image")
        registration.register(Path("image"), sys.argv[3])
        layers = sys.modules[registration.LAYERS_MODULE]
        for kind in (layers.CausalConv, layers.SsdScan):
            original = kind.__init__
            def noted(self, fields, libraries, original=original):
                original(self, fields, libraries)
                print(fields, flush=True)
            kind.__init__ = noted
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(0)
    parser = trt.OnnxParser(network, logger)
    print(parser.parse_from_file(sys.argv[1]), network.num_layers > 100, flush=True)
"""


def parse(folder: Path, *arguments: str) -> list[str]:
    """Let TensorRT's own parser read the graph in a process of its own; return what it prints."""
    command = [sys.executable, "-c", textwrap.dedent(PARSE), GRAPH_FILE, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def test_tensorrt_s_own_parser_creates_the_plugin(tmp_path: Path) -> None:
    """The node's name, namespace and attributes reach our creator, though the body is there too.

    The process ends there: the network of TensorRT for RTX takes no plugin.
    """
    checkpoint = open_checkpoint(TINY_MODELS["tiny"])
    graph_export.export(
        checkpoint, tmp_path, Limits(4, 64, 16), Precision.BF16, mamba=MambaLayers.PLUGIN
    )
    mamba = checkpoint.config.mamba
    assert mamba
    node = next(x for x in onnx.load(tmp_path / GRAPH_FILE).graph.node if x.op_type == "CausalConv")
    values = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
    expected = CausalConvFields(
        values["kernels"].decode(), mamba.conv_dim, mamba.conv_kernel, mamba.in_proj_size
    )
    assert parse(tmp_path, "registered", expected.kernels) == [repr(expected)]
    # and without the plugins it reads the bodies
    assert parse(tmp_path, "absent", "") == ["True True"]
