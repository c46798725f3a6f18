"""Edge-LLM's plugins in NumPy, for ONNX's reference evaluator: what an exported graph computes.

One sequence from an empty state, prefill only. Source: the operators' definitions in
tensorrt-edgellm 0.11.0 (onnx op schemas) and the Mamba-2 paper's recurrence.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from safetensors.numpy import load_file

DOMAIN = "trt_edgellm"


class causal_conv1d(OpRun):  # noqa: N801 - the operator's name
    op_domain = DOMAIN

    def _run(self, x, weight, bias, state, *_, **attributes: Any):
        width = weight.shape[-1]
        padded = np.concatenate([np.zeros((width - 1, x.shape[1])), x.astype(np.float32)])
        taps = weight.astype(np.float32)[:, 0, :]
        y = sum(padded[k : k + len(x)] * taps[:, k] for k in range(width)) + bias.astype(np.float32)
        return y.astype(x.dtype), state


class update_ssm_state(OpRun):  # noqa: N801
    op_domain = DOMAIN

    def _run(self, x, a, b, c, d, dt, dt_bias, state, *_, **attributes: Any):
        dtype = x.dtype
        x, a, b, c, d, dt, dt_bias = (
            value.astype(np.float32) for value in (x, a, b, c, d, dt, dt_bias)
        )
        step = np.logaddexp(0, dt + dt_bias)  # softplus
        heads = x.shape[1] // b.shape[1]
        b, c = b.repeat(heads, axis=1), c.repeat(heads, axis=1)
        held = np.zeros((x.shape[1], x.shape[2], b.shape[2]), np.float32)
        out = np.empty_like(x)
        for t in range(len(x)):
            held = held * np.exp(step[t] * a)[:, None, None]
            held += (step[t][:, None] * x[t])[:, :, None] * b[t][:, None, :]
            out[t] = (held * c[t][:, None, :]).sum(-1) + d[:, None] * x[t]
        return out.astype(dtype), state


class AttentionPlugin(OpRun):
    op_domain = DOMAIN

    def _run(self, qkv, past, *_, num_q_heads, num_kv_heads, head_size, attention_scale, **others):
        num, size = len(qkv), head_size
        heads = qkv.reshape(num, -1, size).astype(np.float32)
        q, k, v = np.split(heads, [num_q_heads, num_q_heads + num_kv_heads], axis=1)
        shared = num_q_heads // num_kv_heads
        scores = np.einsum("qhd,khd->hqk", q, k.repeat(shared, 1)) * attention_scale
        scores += np.triu(np.full((num, num), -np.inf), 1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out = np.einsum("hqk,khd->qhd", weights, v.repeat(shared, 1))
        return out.astype(qkv.dtype), past


def logits(folder: Path, ids: list[int], *, is_float32: bool = False) -> np.ndarray:
    """Return the logits [tokens, vocab] of the exported graph in `folder`, after each of `ids`.

    With `is_float32` what the graph has in float16 is computed in float32: its rounding to 8 bits
    is then that of an oracle in float32, where float16 would tip some values to the next step.
    """
    model = onnx.load(str(folder / "model.onnx"))
    half = np.float32 if is_float32 else np.float16
    if is_float32:
        _widen(model.graph)
    operators = [causal_conv1d, update_ssm_state, AttentionPlugin]
    evaluator = ReferenceEvaluator(model, new_ops=operators)
    (table,) = load_file(folder / "embedding.safetensors").values()
    num = len(ids)
    feeds: dict[str, Any] = {"inputs_embeds": table[ids].astype(half)}
    for entry in model.graph.input:
        if entry.name not in feeds:
            value = _input(entry, num)
            feeds[entry.name] = value.astype(half) if value.dtype == np.float16 else value
    with np.errstate(over="ignore", invalid="ignore"):  # onnx's sigmoid computes both branches
        return np.asarray(evaluator.run(["logits"], feeds)[0], np.float32)


def _widen(graph: Any) -> None:
    """Make float32 of every float16 weight and of every cast to float16."""
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == onnx.TensorProto.FLOAT16:
                attribute.i = onnx.TensorProto.FLOAT
            assert attribute.t.data_type != onnx.TensorProto.FLOAT16


def _input(entry: Any, num_tokens: int) -> np.ndarray:
    """Return the input of one sequence of `num_tokens` that begins."""
    sizes = {"physical_tokens": num_tokens, "num_sequences + 1": 2}
    dims = entry.type.tensor_type.shape.dim
    shape = [d.dim_value or sizes.get(d.dim_param, 1) for d in dims]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
    return np.arange(num_tokens) if entry.name == "logits_indices" else np.zeros(shape, dtype)
