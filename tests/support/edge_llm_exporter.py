"""A stand-in for `tensorrt-edgellm-export`: the contract of 0.11.0's graph, without torch.

Names, types, plugins and attributes are those that the real exporter was seen to write (the slow
test compares); what lies between them is left out. `--fault` makes it err as an exporter may.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.model.model_config import LayerKind
from nemotrt.engines.model.tensor_names import blocks, linear_names

DOMAIN = "trt_edgellm"
TYPES = {"I8": TensorProto.INT8, "F8_E4M3": TensorProto.FLOAT8E4M3FN}


class Graph:
    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.data = bytearray()
        self.scales: dict[bytes, str] = {}

    def weight(self, name: str, values: np.ndarray, kind: int) -> str:
        tensor = TensorProto(name=name, data_type=kind, dims=values.shape)
        tensor.data_location = TensorProto.EXTERNAL
        places = {"location": "model.onnx.data", "offset": len(self.data), "length": values.nbytes}
        for key, value in places.items():
            tensor.external_data.add(key=key, value=str(value))
        self.data += values.tobytes()
        self.weights.append(tensor)
        return name

    def linear(self, checkpoint: Checkpoint, name: str) -> None:
        ref, weight, x = checkpoint[name], f"_model.{name}", f"x of {name}"
        if ref.is_float or self.fault == "codes as weights":
            kind = TYPES.get(ref.dtype, TensorProto.FLOAT16)
            values = ref.map().astype(np.float16) if ref.is_float else ref.map()
            values = values + 1 if self.fault == "other values" else values
            self.node("Gemm", [x, self.weight(weight, values, kind)], f"y of {name}")
            return
        is_fp8 = ref.dtype == "F8_E4M3"
        kind = np.float16 if is_fp8 else np.float32
        scale = checkpoint.floats(f"{name}_scale").astype(kind)
        scale = scale * 2 if self.fault == "other scales" else scale
        number = TensorProto.FLOAT16 if is_fp8 else TensorProto.FLOAT
        scale_name = self.scales.get(scale.tobytes())  # equal scales are kept once
        if scale_name is None:
            scale_name = self.weight(f"{weight}_scale", scale, number)
            self.scales[scale.tobytes()] = scale_name
        self.node("QuantizeLinear", [x], f"codes of {name}")
        self.node("DequantizeLinear", [f"codes of {name}"], f"rounded {name}")
        codes = self.weight(weight, ref.map(), TYPES[ref.dtype])
        self.node("DequantizeLinear", [codes, scale_name], f"floats of {name}")
        self.node("Cast", [f"floats of {name}"], f"halves of {name}")
        source = x if self.fault == "unrounded input" else f"rounded {name}"
        self.node("Gemm", [source, f"halves of {name}"], f"y of {name}")

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        domain = DOMAIN if attributes else ""
        self.nodes.append(helper.make_node(kind, inputs, [output], domain=domain, **attributes))


def build(checkpoint: Checkpoint, fault: str) -> Graph:
    config, graph = checkpoint.config, Graph(fault)
    mamba = config.mamba
    assert mamba is not None
    is_fp8_cache = checkpoint.quant.kv_cache_algo == "FP8"
    for block in blocks(config):
        if block.kind is LayerKind.MAMBA and fault != "no scan":
            conv = {"groups": mamba.conv_dim, "padding": mamba.conv_kernel - 1}
            graph.node("causal_conv1d", [], f"conv {block.index}", **conv)
            scan = {"ngroups": mamba.num_groups, "dt_softplus": 1}
            graph.node("update_ssm_state", [], f"scan {block.index}", **scan)
        elif block.kind is LayerKind.ATTENTION:
            scales = [1.0, 1.0, 1.0]
            if is_fp8_cache:
                names = (block.name("k_proj.k_scale"), block.name("v_proj.v_scale"))
                scales[1:] = [float(checkpoint.floats(name).reshape(())) for name in names]
            graph.node(
                "AttentionPlugin",
                [],
                f"attention {block.index}",
                num_q_heads=config.num_attention_heads,
                num_kv_heads=config.num_key_value_heads,
                head_size=config.head_dim,
                enable_fp8_kv_cache=int(is_fp8_cache and fault != "16-bit cache"),
                qkv_scales=[1.0, 1.0, 1.0] if fault == "no cache scales" else scales,
            )
    for name in (*linear_names(config), "lm_head.weight"):
        graph.linear(checkpoint, name)
    return graph


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--fault", default="")
    arguments = parser.parse_args()
    print("tensorrt_edgellm.onnx.export: begins", flush=True)
    if arguments.fault == "crash":
        print("RuntimeError: the exporter's own words", file=sys.stderr)
        sys.exit(1)
    if arguments.fault == "nothing":
        return
    folder = arguments.output_dir / "llm"
    folder.mkdir(parents=True)
    graph = build(open_checkpoint(arguments.model), arguments.fault)
    proto = helper.make_graph(graph.nodes, "g", [], [], graph.weights)
    onnx.save(helper.make_model(proto), str(folder / "model.onnx"))
    (folder / "model.onnx.data").write_bytes(bytes(graph.data))
    (folder / "config.json").write_text(json.dumps({"edgellm_version": "0.11.0"}))


if __name__ == "__main__":
    main()
