"""TensorRT-LLM 1.2: the bundle, its script, and what is refused."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from nemotrt.cli import main
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.backends.tensorrt_llm_1_2 import support
from nemotrt.engines.backends.tensorrt_llm_1_2.conversion import Rank, rank_tensors
from nemotrt.engines.backends.tensorrt_llm_1_2.rank_tensor import RankTensor, write_tensors
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ConfigError
from support import reference
from support.trtllm_build import convert


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
