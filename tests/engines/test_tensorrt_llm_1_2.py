"""TensorRT-LLM 1.2: the split over GPUs, the checkpoint, and the model class on a stand-in."""

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from nemotrt.cli import main
from nemotrt.engines import tensorrt_llm_1_2
from nemotrt.engines.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.manifest import read_manifest
from nemotrt.engines.model_config import MambaConfig
from nemotrt.engines.precision import Precision
from nemotrt.engines.safetensors_file import read_header
from nemotrt.engines.tensor_names import linear_names
from nemotrt.engines.tensorrt_llm_1_2 import support
from nemotrt.engines.tensorrt_llm_1_2.checkpoint_config import checkpoint_config
from nemotrt.engines.tensorrt_llm_1_2.conversion import Rank, linears, rank_tensors
from nemotrt.engines.tensorrt_llm_1_2.mixed_gemm import HOPPER, mixed_gemm_layout
from nemotrt.engines.tensorrt_llm_1_2.rank_tensor import RankTensor, write_tensors
from nemotrt.engines.tensorrt_llm_1_2.tensor_parallel import (
    head_slice,
    rank_slices,
    sections_of_in_proj,
    take,
)
from nemotrt.engines.tiny_models import TINY_MODELS
from nemotrt.errors import ConfigError
from support import engine_run, fake_quantized, reference
from support.sparse_checkpoint import write_sparse

PROMPT = [1, 700, 23, 1999, 4, 17, 88, 2001, 5]
EXTRA = {
    "int8-sq": [],
    "int8-sq-unfolded": ["--no-fold"],
    "int8-sq-all": ["--no-fold"],
    "fp8": ["--kv-cache", "fp8"],
    "fp8-all": [],
}
ALL = """
description: every linear, the attention's too
algo: {algo}
min_compute_capability: 8.0
quantize:
  nemotron_h:
    mamba: [in_proj, out_proj]
    mlp: [up_proj, down_proj]
    attention: [q_proj, k_proj, v_proj, o_proj]
"""
SIZES = (1, 2, 4, 8)
DTYPES = {"BF16": "bfloat16", "F32": "float32", "I8": "int8", "F8_E4M3": "fp8"}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that eight GPUs may share, in bfloat16, with the tiny model's tokenizer."""
    folder = tmp_path_factory.mktemp("wide") / "m"
    model = reference.nemotron_h(
        "M-*M-",
        vocab_size=4096,
        hidden_size=128,
        intermediate_size=512,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        mamba_num_heads=64,
        mamba_head_dim=8,
        ssm_state_size=64,
        n_groups=8,
        chunk_size=128,
    )
    reference.save(model, folder)
    for path in TINY_MODELS["tiny"].glob("token*"):
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.fixture(scope="module")
def quantized(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function: recipe, or "bf16" -> the wide model in it, by our own quantizer."""
    folder = tmp_path_factory.mktemp("quantized")

    def quantize(name: str) -> Path:
        target = folder / name
        if name == "bf16":
            return wide
        if not target.exists():
            recipe = name.removesuffix("-unfolded")
            if name.endswith("-all"):
                algo = "FP8" if name == "fp8-all" else "W8A8_SQ_PER_CHANNEL"
                (folder / f"{name}.yaml").write_text(ALL.format(algo=algo))
                recipe = str(folder / f"{name}.yaml")
            words = ["quantize", str(wide), "--recipe", recipe, "-q"]
            words += ["--format", "modelopt", "-o", str(target)]
            if name in EXTRA:
                words += ["--calibration", str(folder / "calibration"), *EXTRA[name]]
                words += ["--sequences", "4", "--sequence-tokens", "32"]
            result = CliRunner().invoke(main, words)
            assert result.exit_code == 0, result.stderr
        return target

    return quantize


@pytest.fixture(scope="module")
def nano_9b(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """Return a function: precision -> the 9B at its real widths; weights are holes in a file."""
    folder = tmp_path_factory.mktemp("9b")

    @functools.cache
    def checkpoint(precision: str) -> Checkpoint:
        path = write_sparse(folder / precision, "nemotron-nano-9b-v2", precision)
        return open_checkpoint(path)

    return checkpoint


@pytest.fixture
def engine_api(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the stand-in where `import tensorrt_llm` finds it."""
    monkeypatch.syspath_prepend(str(engine_run.STAND_IN))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("tensorrt_llm", "tensorrt")]:
        del sys.modules[name]


def convert(source: Path, target: Path, tp_size: int, gpu: str = "h100") -> Path:
    words = ["build", "--backend", "tensorrt-llm-1.2", str(source), "--gpu", gpu, "--quiet"]
    words += ["--max-batch-size", "4", "--max-seq-len", "256", "--tp-size", str(tp_size)]
    result = CliRunner().invoke(main, [*words, "-o", str(target)])
    assert result.exit_code == 0, result.stderr
    return target / "trtllm_checkpoint"


# The split


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


# The model class


def expected(model: Any, ids: list[int]) -> np.ndarray:
    return reference.logits(model, ids)[-1]


@pytest.mark.usefixtures("engine_api")
@pytest.mark.parametrize("size", [1, 2])
def test_the_tiny_model_computes_what_transformers_does(size: int, tmp_path: Path) -> None:
    """Six heads of Mamba: 1.2 pads each rank's row of in_proj to eight."""
    folder = convert(TINY_MODELS["tiny"], tmp_path / "e", size, "a10g")
    ranks = engine_run.Ranks(folder, size)
    model = reference.from_folder(TINY_MODELS["tiny"])
    found = ranks.step([(0, PROMPT)])[0]
    np.testing.assert_allclose(found, expected(model, PROMPT), rtol=2e-4, atol=2e-4)
    used = {"MambaConv1d", "SelectiveScan", "GPTAttention"}
    assert set(ranks.networks[0].plugins_used) == used


@pytest.mark.usefixtures("engine_api")
@pytest.mark.parametrize(
    ("recipe", "size", "gpu"),
    [
        ("bf16", 4, "a100"),
        ("bf16", 8, "h100"),
        ("int8-wo", 1, "a10g"),
        ("int8-wo", 8, "a100"),
        ("int8-wo", 2, "h100"),
        ("int8-sq", 2, "a10g"),
        ("int8-sq-unfolded", 8, "a100"),
        ("fp8", 1, "h100"),
        ("fp8", 4, "h100"),
        ("fp8-all", 8, "h100"),
        ("int8-sq-all", 2, "a10g"),
    ],
)
def test_quantized_and_shared_by_gpus_it_is_the_same_model(
    recipe: str,
    size: int,
    gpu: str,
    wide: Path,
    quantized: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    source = quantized(recipe)
    folder = convert(source, tmp_path / "e", size, gpu)
    ranks = engine_run.Ranks(folder, size, is_hopper=gpu == "h100")
    if recipe == "fp8-all":
        source = _with_one_qkv_scale(source, tmp_path / "one")
    model = reference.from_folder(wide) if recipe == "bf16" else fake_quantized.load(wide, source)
    wanted = expected(model, PROMPT)
    error = np.linalg.norm(ranks.step([(1, PROMPT)])[0] - wanted) / np.linalg.norm(wanted)
    assert error < (1e-4 if recipe == "bf16" else 1e-2)


def _with_one_qkv_scale(source: Path, target: Path) -> Path:
    """Copy an FP8 checkpoint with q, k and v coded again in the largest of their scales, by torch.

    TensorRT-LLM has one scale for the three.
    """
    shutil.copytree(source, target)
    tensors = load_torch(target / "model.safetensors")
    names = [f"backbone.layers.2.mixer.{leaf}_proj" for leaf in "qkv"]
    largest = max(tensors[f"{name}.weight_scale"] for name in names)
    assert len({float(tensors[f"{name}.weight_scale"]) for name in names}) == 3
    for name in names:
        floats = tensors[f"{name}.weight"].float() * tensors[f"{name}.weight_scale"]
        codes = (floats / largest).clamp(-448, 448).to(torch.float8_e4m3fn)
        tensors |= {f"{name}.weight": codes, f"{name}.weight_scale": largest.clone()}
    save_torch(tensors, target / "model.safetensors")
    return target


@pytest.mark.usefixtures("engine_api")
def test_decoding_in_a_batch_of_slots_that_were_used_before(wide: Path, tmp_path: Path) -> None:
    """Prompts and single tokens in one step; states and caches by slot, on two ranks."""
    ranks = engine_run.Ranks(convert(wide, tmp_path / "e", 2), 2)
    model = reference.from_folder(wide)
    first, second = PROMPT, PROMPT[::-1][:4]
    ranks.step([(2, first[:5])])
    ranks.step([(2, first[5:6])])
    found = ranks.step([(2, first[6:7]), (0, second)])
    np.testing.assert_allclose(found[0], expected(model, first[:7]), rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(found[1], expected(model, second), rtol=2e-4, atol=2e-4)
    ranks.held[2] = 0
    found = ranks.step([(0, [77]), (2, second)])
    np.testing.assert_allclose(found[0], expected(model, [*second, 77]), rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(found[1], expected(model, second), rtol=2e-4, atol=2e-4)


@pytest.mark.usefixtures("engine_api")
@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        ({"mamba_conv1d_plugin": None}, "needs --mamba_conv1d_plugin"),
        ({"remove_input_padding": False}, "needs --remove_input_padding"),
        ({"gpt_attention_plugin": None}, "needs --gpt_attention_plugin"),
    ],
)
def test_the_class_says_which_flag_of_trtllm_build_it_needs(
    plugins: dict[str, Any], message: str, wide: Path, tmp_path: Path
) -> None:
    ranks = engine_run.Ranks(convert(wide, tmp_path / "e", 1), 1, **plugins)
    with pytest.raises(ValueError, match=message):
        ranks.step([(0, PROMPT)])


@pytest.mark.usefixtures("engine_api")
def test_states_that_are_not_paged_are_tensors_in_and_out(wide: Path, tmp_path: Path) -> None:
    folder = convert(wide, tmp_path / "e", 1)
    ranks = engine_run.Ranks(folder, 1, paged_state=False)
    feeds = ranks._feeds([(0, PROMPT)])
    del feeds["slot_mapping"]
    for name, value in ranks.memory[0].items():
        kind = "conv" if name < 2000 else "rnn"
        feeds[f"past_{kind}_state_{name % 1000}"] = value[:1] * 0
    ranks._feeds = lambda _: feeds  # type: ignore[method-assign]
    found = ranks.step([(0, PROMPT)])[0]
    wanted = expected(reference.from_folder(wide), PROMPT)
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)
    outputs = {"logits"}
    outputs |= {f"present_{kind}_state_{i}" for kind in ("conv", "rnn") for i in (0, 3)}
    assert set(ranks.networks[0].outputs) == outputs


@pytest.mark.usefixtures("engine_api")
@pytest.mark.parametrize(
    ("precision", "capability", "size"),
    [
        ("bf16", "8.6", 1),
        ("bf16", "9.0", 8),
        ("int8-wo", "8.6", 1),
        ("int8-wo", "9.0", 4),
        ("int8-sq", "8.0", 8),
        ("fp8", "9.0", 4),
    ],
)
def test_the_9b_s_tensors_are_those_that_the_class_asks_for(
    precision: str, capability: str, size: int, nano_9b: Callable[[str], Checkpoint]
) -> None:
    """All 56 layers at their widths: names, types and shapes; no weight is read."""
    source = nano_9b(precision)
    found = {
        tensor.name: (DTYPES[tensor.dtype], tensor.shape)
        for tensor in rank_tensors(source, Rank(size - 1, size), capability)
    }
    kind = engine_run.load_model_class(Path(tensorrt_llm_1_2.__file__).parent)
    config_class = sys.modules["tensorrt_llm.models.modeling_utils"].PretrainedConfig
    config = config_class(**checkpoint_config(source, size))
    config.set_rank(size - 1)
    wanted = {name: (p.dtype, p.shape) for name, p in kind(config).named_parameters()}
    assert found == wanted


# The bundle


def test_a_bundle_says_what_it_is(quantized: Callable[[str], Path], tmp_path: Path) -> None:
    target = tmp_path / "e"
    convert(quantized("fp8"), target, 2)
    manifest = read_manifest(target)
    assert (manifest.backend, manifest.executed) == ("tensorrt-llm-1.2", False)
    assert manifest.options == {
        "tp_size": 2,
        "ssm_state": "bfloat16",
        "kv_cache": "fp8",
        "model_class": "trtllm_checkpoint/nemotron_h_model.py",
    }
    files = {"rank0.safetensors", "rank1.safetensors", "config.json", "nemotron_h_model.py"}
    assert {f"trtllm_checkpoint/{name}" for name in files} <= set(manifest.files)
    config = json.loads((target / "trtllm_checkpoint" / "config.json").read_text())
    assert config["architecture"] == "RecurrentGemmaForCausalLM"
    assert config["layer_types"] == ["recurrent", "linear", "attention", "recurrent", "linear"]
    needed = {"state_size", "conv_kernel", "rnn_hidden_size", "rnn_conv_dim_size", "rnn_head_size"}
    assert needed <= config.keys()
    assert config["quantization"] == {
        "quant_algo": "FP8",
        "kv_cache_quant_algo": "FP8",
        "exclude_modules": [
            "transformer.vocab_embedding",
            "transformer.layers.2.attention.qkv",
            "transformer.layers.2.attention.dense",
            "lm_head",
        ],
    }
    opened = CliRunner().invoke(main, ["generate", str(target), "--prompt-ids", "1"])
    assert (opened.exit_code, "build_on_host.sh" in opened.stderr) == (3, True)


def test_the_script_calls_trtllm_build(wide: Path, tmp_path: Path) -> None:
    """Run by sh, with a trtllm-build that notes its arguments."""
    folder = convert(wide, tmp_path / "e", 2)
    tool = tmp_path / "bin" / "trtllm-build"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    tool.chmod(0o755)
    script = str(tmp_path / "e" / "build_on_host.sh")
    environment = {"PATH": f"{tool.parent}:/usr/bin:/bin"}
    done = subprocess.run([script, "/out"], env=environment, capture_output=True, text=True)
    words = done.stdout.split()
    given = dict(zip(words[::2], words[1::2], strict=True))
    assert given == {
        "--checkpoint_dir": str(folder),
        "--model_cls_file": str(folder / "nemotron_h_model.py"),
        "--model_cls_name": "NemotronHForCausalLM",
        "--output_dir": "/out",
        "--workers": "2",
        "--max_batch_size": "4",
        "--max_input_len": "255",
        "--max_seq_len": "256",
        "--max_num_tokens": "259",
        "--max_beam_width": "1",
        "--kv_cache_type": "paged",
        "--gpt_attention_plugin": "bfloat16",
        "--mamba_conv1d_plugin": "bfloat16",
        "--gemm_plugin": "bfloat16",
        "--paged_state": "enable",
        "--remove_input_padding": "enable",
        "--use_paged_context_fmha": "disable",
        "--use_fp8_context_fmha": "disable",
    }


@pytest.mark.parametrize(
    ("precision", "capability", "sizes"),
    [
        ("bf16", "8.6", (1, 2, 4, 8)),
        ("int8-sq", "8.0", (1, 2, 4, 8)),
        ("int8-wo", "8.6", (1,)),  # 15680 / 2 columns are no multiple of 64
        ("int8-wo", "9.0", (1, 2, 4)),  # 15680 / 8 are none of 16
        ("fp8", "9.0", (1, 2, 4)),
    ],
)
def test_how_many_gpus_may_share_the_9b(
    precision: str,
    capability: str,
    sizes: tuple[int, ...],
    nano_9b: Callable[[str], Checkpoint],
) -> None:
    source = nano_9b(precision)
    assert support.tp_sizes(source, capability, Precision(precision)) == sizes


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("bf16", ("--gpu", "b200"), "Use --backend tensorrt-llm."),
        ("fp8", ("--gpu", "a10g"), "no FP8 arithmetic; use a checkpoint in int8-sq, int8-wo"),
        ("fp8-dynamic", ("--gpu", "h100"), "no FP8 scales per token .* use fp8"),
        ("bf16", ("--gpu", "a10g", "--tp-size", "3"), "may be: 1, 2, 4, 8; got 3"),
        ("bf16", ("--gpu", "a10g", "--tp-size", "16"), "8 groups do not divide by 16"),
    ],
)
def test_what_it_does_not_build_is_refused_before_any_work(
    recipe: str,
    options: tuple[str, ...],
    message: str,
    quantized: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    import re

    words = ["build", "--backend", "tensorrt-llm-1.2", str(quantized(recipe)), *options]
    result = CliRunner().invoke(main, [*words, "-o", str(tmp_path / "e")])
    assert result.exit_code == 2
    assert re.search(message, " ".join(result.stderr.split()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": "M-M-"}, "without any attention"),
        ({"chunk_size": 64}, "chunks of 128 or 256; the model has 64"),
        ({"ssm_state_size": 48}, "states of 64 or more, in sixteens; the model has 48"),
        ({"layer_norm_epsilon": 1e-6}, "norm of epsilon 1e-05; the model's is 1e-06"),
    ],
)
def test_a_model_that_its_plugins_do_not_take_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    sizes = {"ssm_state_size": 64, "chunk_size": 128} | changes
    reference.save(reference.nemotron_h(sizes.pop("layers", "M-*-"), **sizes), tmp_path / "m")
    with pytest.raises(ConfigError, match=message):
        support.check(open_checkpoint(tmp_path / "m"), "8.6", Precision.BF16, 1)


def test_weight_only_needs_every_linear(quantized: Callable[[str], Path], tmp_path: Path) -> None:
    copy = tmp_path / "m"
    shutil.copytree(quantized("int8-wo"), copy)
    tensors = load_file(copy / "model.safetensors")
    name = "backbone.layers.0.mixer.in_proj.weight"
    tensors[name] = tensors[name].astype(np.float32)
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(ConfigError, match=r"in_proj\.weight and 0 more are not quantized"):
        support.check(open_checkpoint(copy), "8.6", Precision.INT8_WO, 1)


def test_a_linear_that_is_quantized_in_part_is_refused(
    quantized: Callable[[str], Path], tmp_path: Path
) -> None:
    """q, k and v are one linear there."""
    copy = tmp_path / "m"
    shutil.copytree(quantized("int8-wo"), copy)
    name = "backbone.layers.2.mixer.q_proj"
    tensors = load_file(copy / "model.safetensors")
    tensors[f"{name}.weight"] = tensors[f"{name}.weight"].astype(np.float32)
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(ConfigError, match="quantize all or none"):
        list(rank_tensors(open_checkpoint(copy), Rank(0, 1), "8.0"))


def test_a_rank_s_file_is_read_by_safetensors_itself(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensors = [
        RankTensor("a", "F32", (3, 4), lambda: values),
        RankTensor("b", "F32", (2,), lambda: values[0, :2]),
        RankTensor("strided", "F32", (4, 3), lambda: values.T),
    ]
    write_tensors(tmp_path / "r.safetensors", tensors)
    found = load_file(tmp_path / "r.safetensors")
    np.testing.assert_array_equal(found["a"], values)
    np.testing.assert_array_equal(found["strided"], values.T)
    assert found["b"].tolist() == [0, 1]
