"""What others' writers store is read as what their own readers make of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nemotrt.engines.backends.edge_llm import support
from nemotrt.engines.backends.tensorrt_llm import bundle
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.codes.packed import INT4_WORD
from nemotrt.engines.checkpoint.quantized.config import flat_config, nested_config
from nemotrt.engines.checkpoint.quantized.decoded import DecodedRef
from nemotrt.engines.checkpoint.quantized.linears import decoded_linear
from nemotrt.engines.checkpoint.quantized.scheme import QuantConfig
from nemotrt.engines.checkpoint.quantized.spelling import spelled
from nemotrt.engines.checkpoint.stored.safetensors_file import read_header
from nemotrt.engines.model.numerics import GROUP_SIZES, Precision
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.contracts.loaders import others_verdicts

FIXTURES = Path(__file__).parents[1] / "quantize/fixtures"
GROUP = {"weights": {"num_bits": 4, "strategy": "group", "group_size": 128}}
W4A16 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"g": GROUP},
}
ROTATED = {"config_groups": {"R4": {"type": "hadamard", "apply": [{"location": "input"}]}}}
FP8_CACHE = {"num_bits": 8, "type": "float"}
GPTQ = {"quant_method": "gptq", "group_size": 16, "desc_act": True}
NESTED = {"nvfp4": "NVFP4", "w4a16_awq": "W4A16_AWQ"}


def cases(file: str) -> list[str]:
    return sorted({name.partition(".")[0] for name in load_file(FIXTURES / file)})


def config_of(case: str) -> QuantConfig:
    """What the config of such a checkpoint says."""
    if case in NESTED:
        return nested_config({"quantization": {"quant_algo": NESTED[case]}}, "x")
    if case == "awq":
        return flat_config({"quant_method": "awq", "bits": 4, "group_size": 16}, "x")
    form = "gptq_v2" if "v2" in case else "gptq"
    bits = 4 if "_4" in case else 8
    order = {"desc_act": "desc_act" in case}
    return flat_config(GPTQ | {"bits": bits, "checkpoint_format": form} | order, "x")


def read(path: Path, module: str, quant: QuantConfig) -> DecodedRef:
    """The weight of a module of a file."""
    refs = {
        name.rpartition(".")[2]: ref
        for name, ref in read_header(path)[0].items()
        if name.rpartition(".")[0] == module and not name.endswith("expected")
    }
    assert quant.layout is not None and quant.scheme is not None
    return decoded_linear(module, refs, quant.layout, quant.scheme)


FILES = ("gptq_awq.safetensors", "modelopt_four_bits.safetensors")
STORED = [(file, case) for file in FILES for case in cases(file)]


@pytest.mark.parametrize(("file", "case"), STORED)
def test_codes_stand_for_what_their_own_readers_say(file: str, case: str) -> None:
    """Whole, and any rows alone; their layers multiply in float16, so they round."""
    expected = load_file(FIXTURES / file)[f"{case}.expected"].numpy()
    weight = read(FIXTURES / file, case, config_of(case))
    assert weight.shape == expected.shape
    is_close = np.isclose(weight.map(), expected, rtol=2e-3, atol=2e-4)
    # ModelOpt's fake quantization rounds in bfloat16, its export does not: a few codes differ by 1.
    assert is_close.mean() > (0.99 if case == "w4a16_awq" else 0.9999)
    assert np.abs(weight.map() - expected).max() < 0.1 * np.abs(expected).max()
    for part in (slice(0, 1), slice(5, 12), slice(31, None), slice(7, 8)):
        np.testing.assert_array_equal(weight.rows(part), weight.map()[part])


SCHEMES: dict[str, tuple[str, dict[str, Any]]] = {
    "w4a16": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": 16}),
    "w4a16 asymmetric": (
        "pack-quantized",
        {"num_bits": 4, "strategy": "group", "group_size": 16, "symmetric": False},
    ),
    "w4a16 channel": ("pack-quantized", {"num_bits": 4, "strategy": "channel"}),
    "w8a16 group": ("pack-quantized", {"num_bits": 8, "strategy": "group", "group_size": 16}),
    "w8a16 asymmetric": (
        "pack-quantized",
        {"num_bits": 8, "strategy": "channel", "symmetric": False},
    ),
    "int8 tensor": ("int-quantized", {"num_bits": 8, "strategy": "tensor"}),
    "int8 asymmetric": (
        "int-quantized",
        {"num_bits": 8, "strategy": "channel", "symmetric": False},
    ),
    "fp8 block": (
        "float-quantized",
        {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [16, 16]},
    ),
    "nvfp4": (
        "nvfp4-pack-quantized",
        {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16},
    ),
}


def compressed(
    form: str, told: dict[str, Any], weight: torch.Tensor
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A weight as compressed-tensors' own compressor stores it, and as it reads it again."""
    args = QuantizationArgs(**told)
    rows, columns = weight.shape
    blocks = {
        "tensor": (1, rows, 1, columns),
        "channel": (rows, 1, 1, columns),
        "block": (rows // 16, 16, columns // 16, 16),
    }.get(str(args.strategy), (rows, 1, -1, args.group_size or 16))
    grid = weight.reshape(blocks)
    least, most = grid.amin((1, 3)), grid.amax((1, 3))
    state = {"weight": weight}
    if form == "nvfp4-pack-quantized":
        state["weight_global_scale"] = (448 * 6 / weight.abs().amax()).reshape(1).float()
        scale, zero = calculate_qparams(least, most, args, state["weight_global_scale"])
    else:
        scale, zero = calculate_qparams(least, most, args)
    state |= {"weight_scale": scale.reshape(least.shape)}
    if not args.symmetric:
        state["weight_zero_point"] = zero.reshape(least.shape)
    compressor = BaseCompressor.get_value_from_registry(form)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    stored = compressor.compress(state, scheme)
    return stored, compressor.decompress(dict(stored), scheme)["weight"].float()


@pytest.mark.parametrize("name", SCHEMES)
def test_compressed_tensors_own_codes(name: str, tmp_path: Path) -> None:
    form, told = SCHEMES[name]
    weight = torch.randn(48, 64, generator=torch.Generator().manual_seed(1)) + 0.3
    stored, expected = compressed(form, told, weight)
    path = tmp_path / "x.safetensors"
    save_file({f"m.{leaf}": tensor.contiguous() for leaf, tensor in stored.items()}, path)
    group = {"weights": told, "input_activations": None, "targets": ["Linear"]}
    if form in ("int-quantized", "float-quantized"):
        kind = told.get("type", "int")
        group["input_activations"] = {
            "num_bits": 8,
            "type": kind,
            "strategy": "token",
            "dynamic": True,
        }
    raw = {"quant_method": "compressed-tensors", "format": form, "config_groups": {"g": group}}
    quant = flat_config(raw, "x")
    assert quant.precision is None  # none of these is an arithmetic of ours: read as floats
    rounding = 5e-3 if name == "nvfp4" else 1e-5  # its compressor's result is bfloat16
    np.testing.assert_allclose(read(path, "m", quant).map(), expected, rtol=rounding, atol=1e-6)


@pytest.mark.parametrize(
    ("more", "is_native"),
    [({}, True), ({"actorder": "weight"}, True), ({"symmetric": False}, False)],
)
@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_int4_in_groups_of_our_kernels_stays_int4(
    size: int, more: dict[str, Any], is_native: bool, tmp_path: Path
) -> None:
    told = {"num_bits": 4, "strategy": "group", "group_size": size} | more
    weight = torch.randn(48, 256, generator=torch.Generator().manual_seed(1))
    stored, expected = compressed("pack-quantized", told, weight)
    path = tmp_path / "x.safetensors"
    save_file({f"m.{leaf}": tensor.contiguous() for leaf, tensor in stored.items()}, path)
    group = {"weights": told, "input_activations": None, "targets": ["Linear"]}
    raw = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    quant = flat_config(raw | {"config_groups": {"g": group}}, "x")
    is_native &= size in GROUP_SIZES
    assert (quant.precision is Precision.INT4_WO) is is_native
    found = spelled(read_header(path)[0].items(), quant)
    if is_native:
        assert found["m.weight"].dtype == INT4_WORD
        scales = np.repeat(found["m.weight_scale"].map().astype(np.float32), size, axis=1)
        np.testing.assert_allclose(found["m.weight"].map() * scales, expected, rtol=1e-6)
    else:
        assert found.keys() == {"m.weight"}
        np.testing.assert_allclose(found["m.weight"].map(), expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["gptq_4", "gptq_8_desc_act", "awq", "gptq_v2_4"]),
    st.sampled_from(["qweight", "qzeros", "scales", "g_idx"]),
    st.sampled_from(["missing", "shorter", "of another type", "flat"]),
)
def test_damage_is_named(
    tmp_path_factory: pytest.TempPathFactory, case: str, leaf: str, damage: str
) -> None:
    tensors = {
        name: tensor
        for name, tensor in load_file(FIXTURES / FILES[0]).items()
        if name.startswith(f"{case}.")
    }
    name = f"{case}.{leaf}"
    if name not in tensors or (leaf, damage) in {("g_idx", "missing"), ("qzeros", "missing")}:
        return
    harm: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "shorter": lambda tensor: tensor[:-1].contiguous(),
        "of another type": lambda tensor: tensor.to(torch.int8),
        "flat": lambda tensor: tensor.reshape(1, -1)[None].contiguous(),
    }
    if damage == "missing":
        del tensors[name]
    else:
        tensors[name] = harm[damage](tensors[name])
    path = tmp_path_factory.mktemp("damage") / "x.safetensors"
    save_file(tensors, path)
    expected = load_file(FIXTURES / FILES[0])[f"{case}.expected"].shape
    try:
        weight = read(path, case, config_of(case))
    except ArtefactError as error:
        assert f"{case}." in error.message  # of two that disagree, either
    else:  # another shape, which the checkpoint's own check names
        assert weight.shape != expected


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "gptq, gptq_v2"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "known: gemm"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"+:.*": {"bits": 8}}}, "each module"),
        ({"quant_method": "bitsandbytes"}, "known: modelopt, compressed-tensors"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "quantized_layers"),
        ({"quant_method": "awq", "bits": 4, "format": "gemv_fast"}, "known: gemm"),
        (W4A16 | {"transform_config": ROTATED}, "rotates at 'input'"),
        (W4A16 | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparsity_config"),
        (W4A16 | {"kv_cache_scheme": FP8_CACHE | {"strategy": "attn_head"}}, "attn_head"),
        (W4A16 | {"kv_cache_scheme": FP8_CACHE | {"dynamic": True}}, "kv_cache_scheme"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": GROUP | {"output_activations": {"num_bits": 8}}},
            },
            "output_activations",
        ),
    ],
)
def test_what_cant_be_read_is_refused_with_a_cure(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        flat_config(raw, "config.json")
    assert "Give the 16 bit checkpoint" in " ".join(caught.value.message.split())


def test_what_is_part_of_the_weights_is_read() -> None:
    """Rotations that were multiplied in, a dense mask, a cache of one scale for each layer."""
    merged = {"config_groups": {"u": {"apply": [{"location": "weight_output"}]}}}
    more = {"transform_config": merged, "sparsity_config": {"format": "dense"}}
    cache = {"kv_cache_scheme": FP8_CACHE | {"strategy": "tensor", "dynamic": False}}
    quant = flat_config(W4A16 | more | cache, "x")
    assert quant.precision is Precision.INT4_WO and quant.kv_cache_algo == "FP8"
    assert flat_config(W4A16 | {"transform_config": {}}, "x") == flat_config(W4A16, "x")


@pytest.mark.parametrize("name", ["checkpoint_format", "format"])
def test_the_second_gptq_format_is_known_by_either_name(name: str) -> None:
    """Its zero points are what they say; the first one's are one less."""
    for word, offset in (("gptq", 1), ("gptq_v2", 0)):
        raw = {"quant_method": "gptq", "bits": 4, name: word}
        scheme = flat_config(raw, "x").scheme
        assert scheme is not None and scheme.zero_offset == offset


@pytest.mark.parametrize("is_ordered", [False, True])
def test_an_order_that_the_config_tells_must_be_there(is_ordered: bool, tmp_path: Path) -> None:
    folder = gptq_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["desc_act"] = is_ordered
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if not name.endswith("g_idx")},
        folder / "model.safetensors",
    )
    if is_ordered:
        with pytest.raises(ArtefactError, match=r"up_proj\.g_idx is missing"):
            open_checkpoint(folder)
        return
    assert open_checkpoint(folder).floats("model.layers.0.mlp.up_proj.weight").shape == (32, 64)


def test_each_module_of_a_mixed_checkpoint_has_its_scheme() -> None:
    layers = {
        "backbone.layers.1.mixer.up_proj": {"quant_algo": "W4A16_AWQ", "group_size": 128},
        "backbone.layers.1.mixer.down_proj": {"quant_algo": "FP8"},
    }
    mixed = {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    quant = nested_config({"quantization": mixed}, "x")
    found = {name: quant.scheme_of(name) for name in layers}
    assert [scheme and scheme.precision for scheme in found.values()] == [
        Precision.INT4_WO,
        Precision.FP8,
    ]
    assert quant.scheme_of("lm_head") is None and quant.precision is None
    with pytest.raises(ConfigError, match="mixes 2 kinds"):
        _ = quant.scheme


def test_codes_of_which_no_config_speaks_are_no_floats(tmp_path: Path) -> None:
    folder = gptq_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtefactError, match="is missing"):
        open_checkpoint(folder)


def gptq_folder(folder: Path) -> Path:
    """A checkpoint of one dense layer whose up_proj is GPTQ's, the rest floats."""
    codes = load_file(FIXTURES / FILES[0])
    raw = {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": 96,
        "hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 32,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "quantization_config": GPTQ | {"bits": 4},
    }  # fmt: skip
    from nemotrt.engines.model.hf_config import parse_model_config
    from nemotrt.engines.model.tensor_names import expected_shapes

    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn(shape, generator=generator) * 0.05
        for name, shape in expected_shapes(parse_model_config(raw)).items()
    }
    module = "model.layers.0.mlp.up_proj"
    del tensors[f"{module}.weight"]
    tensors |= {
        f"{module}.{leaf}": codes[f"gptq_4_desc_act.{leaf}"]
        for leaf in ("qweight", "qzeros", "scales", "g_idx")
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_engines_that_open_the_folder_themselves_refuse_it(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(gptq_folder(tmp_path))
    with pytest.raises(ConfigError, match=r"stored as GPTQ, 4 bits.*trtllm-serve"):
        bundle.check(checkpoint, "8.0", 1)
    with pytest.raises(ConfigError, match=r"stored as GPTQ, 4 bits.*--format modelopt"):
        support.check(checkpoint, "8.0")


def test_a_folder_is_a_checkpoint_of_floats_that_says_so(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(gptq_folder(tmp_path))
    assert checkpoint.quant.precision is None
    assert checkpoint.notes() == ("GPTQ, 4 bits: its linears are read as floats, dequantized",)
    expected = load_file(FIXTURES / FILES[0])["gptq_4_desc_act.expected"].numpy()
    found = checkpoint.floats("model.layers.0.mlp.up_proj.weight", slice(3, 9))
    np.testing.assert_allclose(found, expected[3:9], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(
    ("quant", "takes"),
    [
        (config_of("nvfp4"), {"TensorRT-LLM (PyTorch)", "vLLM"}),
        (config_of("w4a16_awq"), {"TensorRT-LLM (PyTorch)"}),
        (config_of("awq"), {"vLLM", "transformers"}),
        (config_of("gptq_4"), {"vLLM", "transformers"}),
        (
            flat_config({"quant_method": "gguf", "types": {"Q4_K": 9, "Q6_K": 1}}, "x"),
            {"llama.cpp"},
        ),
    ],
)
def test_who_loads_what_others_stored(quant: QuantConfig, takes: set[str]) -> None:
    found = others_verdicts(quant)
    assert {name for name, verdict in found.items() if verdict.startswith("yes")} == {
        "nemotrt build",
        *takes,
    }
