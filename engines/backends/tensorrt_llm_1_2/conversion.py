"""Every tensor of a rank's file, from the checkpoint's, under the names of our model class."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.tensorrt_llm_1_2.linears import Linear, Part, constant, linear_tensors
from nemotrt.engines.backends.tensorrt_llm_1_2.rank_tensor import RankTensor
from nemotrt.engines.backends.tensorrt_llm_1_2.tensor_parallel import (
    head_slice,
    rank_slices,
    sections_of_conv,
    sections_of_in_proj,
    take,
)
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.model_config import LayerKind
from nemotrt.engines.model.tensor_names import Block, blocks, model_names

BF16 = np.dtype(ml_dtypes.bfloat16)
Change = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Rank:
    """One of the GPUs that share a model."""

    number: int
    size: int

    def share(self, *sections: int) -> tuple[slice, ...]:
        """Return what the rank takes of a dimension."""
        return tuple(rank_slices(sections, self.number, self.size))


def rank_tensors(
    checkpoint: Checkpoint, rank: Rank, compute_capability: str
) -> Iterator[RankTensor]:
    """Yield the tensors of one rank's file; the embedding and the norms are whole in each."""
    names = model_names(checkpoint.config)
    yield _vector(checkpoint, names.embeddings, "transformer.vocab_embedding.weight")
    for position, block in enumerate(blocks(checkpoint.config)):
        layer = f"transformer.layers.{position}"
        yield _vector(checkpoint, block.norm, f"{layer}.input_layernorm.weight")
        if block.kind is LayerKind.MAMBA:
            yield from _mamba_vectors(checkpoint, block, f"{layer}.ssm", rank)
    yield _vector(checkpoint, names.final_norm, "transformer.ln_f.weight")
    for linear in linears(checkpoint, rank):
        yield from linear_tensors(checkpoint, linear, compute_capability)
    if checkpoint.quant.has_fp8_cache:
        yield from _cache_scales(checkpoint)


def linears(checkpoint: Checkpoint, rank: Rank) -> Iterator[Linear]:
    """Yield every linear, and what the rank takes of it: the head last."""
    config = checkpoint.config
    hidden = (slice(0, config.hidden_size),)
    for position, block in enumerate(blocks(config)):
        layer = f"transformer.layers.{position}"

        of = partial(_part, block)
        if block.kind is LayerKind.MAMBA:
            assert config.mamba is not None  # support.check()
            rows = rank.share(*sections_of_in_proj(config.mamba))
            columns = rank.share(config.mamba.inner_size)
            yield Linear(f"{layer}.ssm.in_proj", (of("in_proj", rows, hidden),))
            yield Linear(f"{layer}.ssm.out_proj", (of("out_proj", hidden, columns),))
        elif block.kind is LayerKind.MLP:
            share = rank.share(config.intermediate_size)
            yield Linear(f"{layer}.mlp.fc", (of("up_proj", share, hidden),))
            yield Linear(f"{layer}.mlp.proj", (of("down_proj", hidden, share),))
        else:
            queries = rank.share(config.q_size)
            heads = (config.num_key_value_heads, config.head_dim)
            keys = (head_slice(*heads, rank.number, rank.size),)
            parts = (("q_proj", queries), ("k_proj", keys), ("v_proj", keys))
            yield Linear(
                f"{layer}.attention.qkv", tuple(of(leaf, rows, hidden) for leaf, rows in parts)
            )
            yield Linear(f"{layer}.attention.dense", (of("o_proj", hidden, queries),))
    head = Part(model_names(config).lm_head, rank.share(config.vocab_size), hidden)
    yield Linear("lm_head", (head,))


def _part(block: Block, leaf: str, rows: tuple[slice, ...], columns: tuple[slice, ...]) -> Part:
    """Return what a rank takes of one of a block's linears."""
    return Part(block.name(f"{leaf}.weight"), rows, columns)


def unquantized_modules(checkpoint: Checkpoint) -> list[str]:
    """Return the names of the modules that TensorRT-LLM must leave as they are."""
    whole = Rank(0, 1)
    names = [
        linear.name for linear in linears(checkpoint, whole) if not linear.is_quantized(checkpoint)
    ]
    return ["transformer.vocab_embedding", *names]


def _mamba_vectors(
    checkpoint: Checkpoint, block: Block, prefix: str, rank: Rank
) -> Iterator[RankTensor]:
    """Yield what the scan and the convolution read: float32 for A, D and dt's bias."""
    mamba = checkpoint.config.mamba
    assert mamba is not None  # support.check()
    heads, inner = rank.share(mamba.num_heads), rank.share(mamba.inner_size)
    channels = rank.share(*sections_of_conv(mamba))
    yield _vector(checkpoint, block.name("A_log"), f"{prefix}.A", heads, _decay, "F32")
    yield _vector(checkpoint, block.name("D"), f"{prefix}.D", heads, dtype="F32")
    yield _vector(checkpoint, block.name("dt_bias"), f"{prefix}.dt_bias", heads, dtype="F32")
    conv = block.name("conv1d.weight")
    yield _vector(checkpoint, conv, f"{prefix}.conv1d.weight", channels, _image)
    yield _vector(checkpoint, block.name("conv1d.bias"), f"{prefix}.conv1d.bias", channels)
    yield _vector(checkpoint, block.name("norm.weight"), f"{prefix}.norm.weight", inner)


def _decay(a_log: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return -np.exp(a_log.astype(np.float32))


def _image(weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return [channels, 1, kernel] with TensorRT-LLM's trailing dimension."""
    return weight[..., None]


def _vector(
    checkpoint: Checkpoint,
    source: str,
    target: str,
    rows: tuple[slice, ...] | None = None,
    change: Change | None = None,
    dtype: str = "BF16",
) -> RankTensor:
    """Return a tensor that no linear owns: its rank's rows, changed, in that type."""

    def load(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        part = values if rows is None else take(values, rows, 0)
        part = part if change is None else change(part)
        return part.astype(np.float32 if dtype == "F32" else BF16, copy=False)

    ref = checkpoint[source]
    count = ref.shape[0] if rows is None else sum(row.stop - row.start for row in rows)
    shape = (count, *ref.shape[1:], *((1,) if change is _image else ()))
    return RankTensor(target, dtype, shape, partial(load, ref.map()))


def _cache_scales(checkpoint: Checkpoint) -> Iterator[RankTensor]:
    """Yield the scale of each attention layer's FP8 cache: one for keys and values there."""
    for position, block in enumerate(blocks(checkpoint.config)):
        if block.kind is LayerKind.ATTENTION:
            names = (block.name("k_proj.k_scale"), block.name("v_proj.v_scale"))
            largest = max(checkpoint.floats(name).reshape(-1)[0] for name in names)
            name = f"transformer.layers.{position}.attention.kv_cache_scaling_factor"
            yield constant(name, largest)
