"""Bundles for TensorRT-LLM: written and checked here, served on the GPU host."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.engine import Limits
from nemotrt.engines.manifest import read_manifest
from nemotrt.engines.tensorrt_llm.llm_args import check_names, llm_args
from nemotrt.errors import ConfigError


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["build", "--backend", "tensorrt-llm", *arguments])
    return result.exit_code, result.stderr


def test_a_bundle_says_how_to_serve_the_checkpoint(
    quantized_tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    source, target = quantized_tiny("fp8"), tmp_path / "b"
    options = ["--max-batch-size", "16", "--max-seq-len", "4096", "--chunk-tokens", "1024"]
    code, stderr = run(str(source), "--gpu", "h100", *options, "--tp-size", "2", "-o", str(target))
    assert code == 0, stderr
    assert "not executed" in stderr
    args = yaml.safe_load((target / "llm_args.yaml").read_text())
    assert args == {
        "tensor_parallel_size": 2,
        "max_batch_size": 16,
        "max_seq_len": 4096,
        "max_num_tokens": 1040,
        "max_beam_width": 1,
        "enable_chunked_prefill": True,
        "kv_cache_config": {
            "enable_block_reuse": False,
            "free_gpu_memory_fraction": 0.8,
            "mamba_ssm_cache_dtype": "float32",
            "dtype": "fp8",
        },
        "cuda_graph_config": {"enable_padding": True, "max_batch_size": 16},
    }
    manifest = read_manifest(target)
    assert manifest.executed is False
    assert manifest.checkpoint.path == str(source.resolve())
    assert not list(target.rglob("*.safetensors"))
    opened = CliRunner().invoke(main, ["generate", str(target), "--prompt-ids", "1"])
    assert opened.exit_code == 3
    assert f"trtllm-serve {source.resolve()} --extra_llm_api_options" in opened.stderr


@pytest.mark.parametrize(
    ("recipe", "gpu", "tp_size", "message"),
    [
        ("int8-sq", "a100", "1", "--backend tensorrt, which runs int8-sq"),
        ("fp8", "a10g", "1", "no FP8 arithmetic"),
        ("int8-wo", "a10g", "3", "must be one of"),
        ("int8-wo", "a10g", "4", "2 groups must divide by it"),
    ],
)
def test_what_it_does_not_serve_is_refused(
    recipe: str,
    gpu: str,
    tp_size: str,
    message: str,
    quantized_tiny: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    source = str(quantized_tiny(recipe))
    code, stderr = run(source, "--gpu", gpu, "--tp-size", tp_size, "-o", str(tmp_path / "b"))
    assert code == 2
    assert message in " ".join(stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_ampere_gets_no_fp8_cache() -> None:
    args = llm_args(Limits(8, 1024, 128), has_fp8_cache=False)
    assert args["kv_cache_config"]["dtype"] == "auto"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"max_batchsize": 1}, "'max_batch_size'"),
        ({"kv_cache_config": {"enable_blocks_reuse": True}}, "'enable_block_reuse'"),
    ],
)
def test_a_name_that_tensorrt_llm_has_not_is_refused(args: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_names(args)
