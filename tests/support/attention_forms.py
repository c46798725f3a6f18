"""Compiles one attention of the 9B over its caches in a given form, and says what came out.

A script: TensorRT keeps the first logger of a process. It prints one JSON object a form.
"""

import json
import re
import sys
from typing import Any

import numpy as np
import tensorrt_rtx_bindings as trt

HEADS, GROUPS, DEPTH = 40, 8, 128
KERNEL = re.compile(rb"function=\{ name=_(ge.._mha)_v\d.*? vec_width=(\d+)")
SOURCE = re.compile(rb'extern "C" __global__ void \S+\(\d+\) _(ge.._mha)_v[^\0]*')
MINUS_ONE = np.array([-1], np.int32)  # a constant's values must outlive the build


class Log(trt.ILogger):  # type: ignore[misc]
    """Keeps errors and scratch sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []
        self.scratch_bytes: list[int] = []

    def log(self, severity: Any, message: str) -> None:
        if severity <= trt.ILogger.ERROR and "driver" not in message:
            self.errors.append(message)
        elif found := re.match(r"Total Activation Memory: (\d+)", message):
            self.scratch_bytes.append(int(found[1]))


def network_of(builder: Any, form: str, capacity: int) -> Any:
    """Return the network of an attention: by mask, lengths, packed tokens, or copied keys."""
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    is_packed = form == "packed"
    past = network.add_input("past", trt.DataType.INT32, (-1,))
    new = (-1, GROUPS, DEPTH) if is_packed else (-1, GROUPS, -1, DEPTH)
    caches = []
    for name in ("k", "v"):
        cache = network.add_input(f"{name}_cache", trt.DataType.BF16, (-1, GROUPS, capacity, DEPTH))
        update = network.add_input(name, trt.DataType.BF16, new)
        layer = network.add_kv_cache_update(cache, update, past, trt.KVCacheMode.LINEAR)
        if is_packed:
            layer.update_form = trt.AttentionIOForm.PACKED_NHD
        caches.append((layer, layer.get_output(0)))
    heads = (-1, HEADS, DEPTH) if is_packed else (-1, HEADS, -1, DEPTH)
    query = network.add_input("q", trt.DataType.BF16, heads)
    by_length = form in ("lengths", "packed")
    kind = trt.CausalMaskKind.LOWER_RIGHT if by_length else trt.CausalMaskKind.NONE
    keys, values = (
        times_one(network, cache, past) if form == "copied" else cache for _, cache in caches
    )
    attention = network.add_attention_v2(
        query, keys, values, trt.AttentionNormalizationOp.SOFTMAX, kind
    )
    if by_length:
        attention.key_value_lengths = network.add_input("lengths", trt.DataType.INT32, (-1,))
    else:
        attention.mask = network.add_input("mask", trt.DataType.BOOL, (-1, 1, -1, capacity))
    if is_packed:
        starts = network.add_input("starts", trt.DataType.INT32, (-1,))
        attention.query_form = trt.AttentionIOForm.PACKED_NHD
        attention.query_lengths = starts
        for layer, _ in caches:
            layer.update_lengths = starts
    for name, tensor in zip("kvy", (*(c for _, c in caches), attention.get_output(0)), strict=True):
        tensor.name = f"{name}_out"
        network.mark_output(tensor)
    return network


def times_one(network: Any, cache: Any, past: Any) -> Any:
    """Return a cache times a one that the compiler can't see through."""
    least = network.add_constant((1,), MINUS_ONE).get_output(0)
    is_true = network.add_elementwise(past, least, trt.ElementWiseOperation.GREATER).get_output(0)
    shaped = network.add_shuffle(network.add_cast(is_true, trt.DataType.BF16).get_output(0))
    shaped.reshape_dims = (-1, 1, 1, 1)
    product = trt.ElementWiseOperation.PROD
    return network.add_elementwise(cache, shaped.get_output(0), product).get_output(0)


def compiled(form: str, target: str, capacity: int, tokens: int) -> dict[str, Any]:
    """Return scratch bytes (decode, prompts), each kernel's vector width and source; or errors."""
    log = Log()
    builder = trt.Builder(log)
    network = network_of(builder, form, capacity)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for shapes in (((1, 1), (8, 1), (16, 1)), ((1, 2), (1, tokens), (1, tokens))):
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            profile.set_shape(tensor.name, *(sized(tensor, *shape, form) for shape in shapes))
        config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return {"errors": log.errors}
    code = bytes(plan)
    return {
        "errors": [],
        "scratch_bytes": log.scratch_bytes,
        "widths": {name.decode(): int(width) for name, width in KERNEL.findall(code)},
        "sources": {found[1].decode(): found[0].decode() for found in SOURCE.finditer(code)},
    }


def sized(tensor: Any, batch: int, tokens: int, form: str) -> tuple[int, ...]:
    """Return a tensor's shape for sequences of so many tokens."""
    shape = list(tensor.shape)
    if form == "packed" and tensor.name in ("q", "k", "v"):
        return (batch * tokens, *shape[1:])
    if tensor.name == "starts":
        return (batch + 1,)
    free = [axis for axis, size in enumerate(shape) if size == -1]
    for axis, size in zip(free, (batch, tokens), strict=False):
        shape[axis] = size
    return tuple(shape)


if __name__ == "__main__":
    target, capacity, tokens, *forms = sys.argv[1:]
    for form in forms:
        print(json.dumps(compiled(form, target, int(capacity), int(tokens))), flush=True)
