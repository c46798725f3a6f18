"""TensorRT-LLM 1.2: the split of a checkpoint over GPUs."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.backends.tensorrt_llm_1_2.conversion import Rank, linears, rank_tensors
from nemotrt.engines.backends.tensorrt_llm_1_2.mixed_gemm import HOPPER, mixed_gemm_layout
from nemotrt.engines.backends.tensorrt_llm_1_2.rank_tensor import write_tensors
from nemotrt.engines.backends.tensorrt_llm_1_2.tensor_parallel import (
    head_slice,
    rank_slices,
    sections_of_in_proj,
    take,
)
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.checkpoint.stored.safetensors_file import read_header
from nemotrt.engines.model.model_config import MambaConfig
from nemotrt.engines.model.tensor_names import linear_names
from support import engine_run

SIZES = (1, 2, 4, 8)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    size=st.sampled_from(SIZES),
    width=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_the_ranks_parts_of_each_section_are_the_section(
    counts: list[int], size: int, width: int, seed: int
) -> None:
    sections = [count * size for count in counts]
    whole = np.random.default_rng(seed).normal(size=(sum(sections), width))
    parts = [take(whole, rank_slices(sections, rank, size), 0) for rank in range(size)]
    ends = np.cumsum([count for count in counts])
    by_section = [np.split(part, ends[:-1]) for part in parts]
    again = [np.concatenate(pieces) for pieces in zip(*by_section, strict=True)]
    np.testing.assert_array_equal(np.concatenate(again), whole)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("num_heads", [1, 2, 4, 8, 16])
def test_every_kv_head_is_held_by_those_whose_queries_ask_for_it(num_heads: int, size: int) -> None:
    """Query head q reads KV head q * num_heads // num_queries, whichever rank has it."""
    num_queries, head_dim = 16, 3
    heads = np.arange(num_heads).repeat(head_dim)
    for rank in range(size):
        held = heads[head_slice(num_heads, head_dim, rank, size)][::head_dim]
        queries = range(rank * num_queries // size, (rank + 1) * num_queries // size)
        shared = len(queries) // len(held)
        asked = [held[(q - queries[0]) // shared] for q in queries]
        assert asked == [q * num_heads // num_queries for q in queries]


def test_in_proj_s_sections_are_the_9b_s() -> None:
    """Source: the model's config: 128 heads of 80, 8 groups, state 128."""
    mamba = MambaConfig(128, 80, 128, 8, 4)
    assert sections_of_in_proj(mamba) == (10240, 10240, 1024, 1024, 128)
    assert sum(sections_of_in_proj(mamba)) == 22656


def joined(files: list[dict[str, np.ndarray]], name: str, sections: list[int]) -> np.ndarray:
    """Return the ranks' shards of rows as one, section by section."""
    size = len(files)
    ends = np.cumsum([section // size for section in sections])[:-1]
    pieces = zip(*(np.split(file[name], ends) for file in files), strict=True)
    return np.concatenate([np.concatenate(piece) for piece in pieces])


def whole(files: list[dict[str, np.ndarray]], name: str, source: Checkpoint) -> np.ndarray:
    """Return the ranks' shards of a tensor put together, by rules written down here alone."""
    config, mamba = source.config, source.config.mamba
    assert mamba is not None
    inner, state = mamba.inner_size, mamba.num_groups * mamba.state_size
    row_sections = {
        "in_proj": [inner, inner, state, state, mamba.num_heads],
        "conv1d": [inner, state, state],
        "ssm": [mamba.num_heads],  # A, D, dt_bias
        "norm": [inner],
        "fc": [config.intermediate_size],
        "lm_head": [config.vocab_size],
    }
    module, leaf = name.split(".")[-2:]
    shards = [file[name] for file in files]
    is_row_parallel = module in ("out_proj", "proj", "dense")
    if is_row_parallel and leaf in ("weight", "prequant_scaling_factor"):
        return np.concatenate(shards, -1)
    is_scalar = shards[0].shape == (1,)
    if module in row_sections and not is_scalar and leaf != "prequant_scaling_factor":
        return joined(files, name, row_sections[module])
    for shard in shards[1:]:  # held by every rank
        np.testing.assert_array_equal(bits(shard), bits(shards[0]))
    return shards[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("recipe", ["bf16", "int8-sq-unfolded", "fp8"])
def test_the_ranks_files_together_are_the_checkpoint(
    recipe: str, size: int, quantized: Callable[[str], Path], tmp_path: Path
) -> None:
    """Every tensor of every file, bit for bit."""
    source = open_checkpoint(quantized(recipe))
    files = _rank_files(source, size, tmp_path)
    for name in files[0]:
        if name.endswith(".qkv.weight"):
            _check_qkv(files, name, source)
            continue
        found = whole(files, name, source)
        expected = _stored(source, name, found)
        assert found.size == expected.size, name
        np.testing.assert_array_equal(bits(found).ravel(), bits(expected).ravel(), name)
    linears = sum(name.endswith(("proj.weight", "fc.weight", "dense.weight")) for name in files[0])
    assert linears == len(linear_names(source.config)) - 3  # q, k and v are one


def _stored(source: Checkpoint, name: str, found: np.ndarray) -> np.ndarray:
    """Return what the checkpoint has under the hub's name for one of 1.2's tensors."""
    layer = next(filter(str.isdigit, name.split(".")), "")
    hub = f"backbone.layers.{layer}.mixer"
    module, leaf = name.split(".")[-2:]
    linears = {"in_proj": "in_proj", "out_proj": "out_proj", "fc": "up_proj", "proj": "down_proj"}
    linears["dense"] = "o_proj"
    if module == "attention":  # the larger of the cache's scales serves both
        scales = [source.floats(f"{hub}.{x}_proj.{x}_scale") for x in "kv"]
        return np.maximum(*scales).reshape(1)
    if module in linears:
        leaves = {
            "weight": "weight",
            "weights_scaling_factor": "weight_scale",
            "activation_scaling_factor": "input_scale",
            "prequant_scaling_factor": "pre_quant_scale",
        }
        stored = f"{hub}.{linears[module]}.{leaves[leaf]}"
        if leaf == "prequant_scaling_factor" and stored not in source:
            return np.ones(found.shape, np.float32)
        return source[stored].map()
    if leaf == "A":
        return -np.exp(source.floats(f"{hub}.A_log"))
    names = {
        "vocab_embedding": "backbone.embeddings.weight",
        "ln_f": "backbone.norm_f.weight",
        "lm_head": "lm_head.weight",
        "input_layernorm": f"backbone.layers.{layer}.norm.weight",
        "conv1d": f"{hub}.conv1d.{leaf}",
        "norm": f"{hub}.norm.weight",
        "ssm": f"{hub}.{leaf}",
    }
    stored_values = source[names[module]].map()
    return stored_values.astype(np.float32) if module == "ssm" else stored_values


def _check_qkv(files: list[dict[str, np.ndarray]], name: str, source: Checkpoint) -> None:
    """Queries are shared out; a KV head is held by each rank whose queries read it."""
    config, size = source.config, len(files)
    hub = f"backbone.layers.{name.split('.')[2]}.mixer"
    q, k, v = (source[f"{hub}.{leaf}_proj.weight"].map() for leaf in "qkv")
    num_q = config.q_size // size
    np.testing.assert_array_equal(bits(np.concatenate([f[name][:num_q] for f in files])), bits(q))
    for rank, file in enumerate(files):
        rest = file[name][num_q:]
        for part, whole_part in zip(np.split(rest, 2), (k, v), strict=True):
            num_heads = len(part) // config.head_dim
            first = rank * config.num_key_value_heads // size
            rows = slice(first * config.head_dim, (first + num_heads) * config.head_dim)
            np.testing.assert_array_equal(bits(part), bits(whole_part[rows]))


def bits(values: np.ndarray) -> np.ndarray:
    """Return the bits, so that NaN codes and signs of zero count too; 16 bits as float32's."""
    if values.dtype.itemsize == 2:
        values = values.astype(np.float32)
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _rank_files(source: Checkpoint, size: int, folder: Path) -> list[dict[str, np.ndarray]]:
    files = []
    for rank in range(size):
        path = folder / f"rank{rank}.safetensors"
        write_tensors(path, list(rank_tensors(source, Rank(rank, size), "9.0")))
        files.append({name: ref.map() for name, ref in read_header(path)[0].items()})
    return files


@pytest.mark.parametrize("size", SIZES)
def test_sharded_products_summed_are_the_whole_products(size: int, wide: Path) -> None:
    """What crosses the ranks is one sum behind each pair of linears."""
    source, rng = open_checkpoint(wide), np.random.default_rng(0)
    config = source.config
    x = rng.normal(size=(5, config.hidden_size))
    ranks = [
        {linear.name: linear for linear in linears(source, Rank(rank, size))}
        for rank in range(size)
    ]

    def weight(rank: int, name: str) -> np.ndarray:
        parts = ranks[rank][name].parts
        return np.concatenate([part.of(source.floats(part.name)) for part in parts]).astype(float)

    def hub(name: str) -> np.ndarray:
        return source.floats(name).astype(float)

    mlp = "backbone.layers.1.mixer"
    whole = (
        np.maximum(x @ hub(f"{mlp}.up_proj.weight").T, 0) ** 2 @ hub(f"{mlp}.down_proj.weight").T
    )
    fc, proj = "transformer.layers.1.mlp.fc", "transformer.layers.1.mlp.proj"
    inner = [np.maximum(x @ weight(rank, fc).T, 0) ** 2 for rank in range(size)]
    summed = sum(inner[rank] @ weight(rank, proj).T for rank in range(size))
    np.testing.assert_allclose(summed, whole, rtol=1e-9, atol=1e-9)

    mamba, ssm = "backbone.layers.0.mixer", "transformer.layers.0.ssm"
    inner_size = config.mamba.num_heads * config.mamba.head_dim
    gate = (x @ hub(f"{mamba}.in_proj.weight").T)[:, :inner_size]
    whole = gate @ hub(f"{mamba}.out_proj.weight").T
    shares = [
        (x @ weight(rank, f"{ssm}.in_proj").T)[:, : inner_size // size] for rank in range(size)
    ]
    summed = sum(shares[rank] @ weight(rank, f"{ssm}.out_proj").T for rank in range(size))
    np.testing.assert_allclose(summed, whole, rtol=1e-9, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    tiles=st.integers(1, 3), columns=st.integers(1, 5), capability=st.sampled_from(["8.0", HOPPER])
)
def test_the_mixed_gemm_s_order_is_undone_address_by_address(
    tiles: int, columns: int, capability: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(engine_run.STAND_IN))
        from tensorrt_llm.quantization import decode

        rng = np.random.default_rng(tiles * 10 + columns)
        codes = rng.integers(-128, 128, (8 * columns, 64 * tiles), np.int8)
        stored = mixed_gemm_layout(codes, capability)
        assert stored.shape == codes.shape[::-1]
        np.testing.assert_array_equal(decode(stored, capability == HOPPER), codes.T)
        for name in [n for n in sys.modules if n.split(".")[0] == "tensorrt_llm"]:
            del sys.modules[name]
