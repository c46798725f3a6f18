"""Checks the scales of a quantized KV cache against what the loaders demand."""

from collections.abc import Iterator, Mapping

from nemotrt.engines.checkpoint.safetensors_file import TensorRef
from nemotrt.engines.model.model_config import LayerKind, ModelConfig
from nemotrt.engines.model.numerics import KV_CODES
from nemotrt.engines.model.tensor_names import blocks
from nemotrt.quantize.contracts.linear_contract import scale_faults
from nemotrt.quantize.conversion.formats import CheckpointFormat

LEAVES = ("k_scale", "v_scale")


def kv_faults(
    model: ModelConfig,
    layout: CheckpointFormat,
    kv_algo: str | None,
    tensors: Mapping[str, TensorRef],
) -> Iterator[str]:
    """Yield each broken rule in one line.

    An FP8 cache may have no scales: loaders then take 1. An INT8 cache must have them, and what no
    config speaks of would not be read.
    """
    if kv_algo is not None and kv_algo not in KV_CODES:
        yield f"the KV cache is {kv_algo}, which is neither FP8 nor INT8"
    for block in blocks(model):
        if block.kind is not LayerKind.ATTENTION:
            continue
        for leaf in LEAVES:
            name = block.name(layout.cache_scale(leaf))
            ref = tensors.get(name)
            if ref is None:
                if kv_algo == "INT8":
                    yield f"{name} is missing: an int8 KV cache has no scale without it"
            elif kv_algo is None:
                yield f"{name} is there, but the configs say that the KV cache is not quantized"
            else:
                yield from scale_faults(name, ref, ("F32",), layout.one_scale)
