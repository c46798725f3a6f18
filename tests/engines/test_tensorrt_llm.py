"""Bundles for TensorRT-LLM: written and checked here, served on the GPU host."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.backends.tensorrt_llm import bundle
from nemotrt.engines.backends.tensorrt_llm.bundle import ARGS_FILE, REUSE_FILE
from nemotrt.engines.backends.tensorrt_llm.llm_args import (
    graph_batch_sizes,
    llm_args,
    read_llm_args,
)
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.text.chat.template import load_chat_template
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy
from nemotrt.profiles.planning.sessions.load import agents_load
from support.sparse_checkpoint import write_sparse


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
        "backend": "pytorch",
        "trust_remote_code": False,
        "tensor_parallel_size": 2,
        "max_batch_size": 16,
        "max_input_len": 4096,
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
        "cuda_graph_config": {"enable_padding": True, "batch_sizes": [1, 2, 4, 8, 16]},
    }
    seen = CliRunner().invoke(main, ["inspect", str(target)]).stdout
    assert all(words in seen for words in ("in the checkpoint", "no GPU was there", "tp_size 2"))
    pods = CliRunner().invoke(main, ["serve", "k8s", str(target), "--image", "i", "--claim", "c"])
    assert 'nvidia.com/gpu: "2"' in pods.stdout
    manifest = read_manifest(target)
    assert manifest.executed is False
    assert manifest.checkpoint.path == str(source.resolve())
    assert not list(target.rglob("*.safetensors"))
    opened = CliRunner().invoke(main, ["generate", str(target), "--prompt-ids", "1"])
    assert opened.exit_code == 3
    assert "can't be installed beside nemotrt" in opened.stderr  # it wants numpy < 2
    assert "pip install 'tensorrt-llm>=1.2.1'" in opened.stderr
    assert "--tensorrt-llm-python" in opened.stderr
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


def test_limits_come_from_the_planner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The A10G holds as many of the 9B's sequences as the planner says, less the LLM's reserve."""
    # 18 GB of zeros are not worth a digest.
    monkeypatch.setattr(bundle, "tensor_digests", lambda refs: ["0" * 64 for _ in refs])
    source = write_sparse(tmp_path / "9b", "nemotron-nano-9b-v2", "bf16")
    found = {}
    for gpu in ("a10g", "h100"):
        target = tmp_path / gpu
        code, stderr = run(str(source), "--gpu", gpu, "-o", str(target))
        assert code == 0, stderr
        assert "Planned, not measured" in stderr
        found[gpu] = yaml.safe_load((target / "llm_args.yaml").read_text())
    options = DeploymentOptions(
        "nemotron-nano-9b-v2", "h100", engine="tensorrt-llm", isl=8192, osl=16384
    )
    fitting = deploy(options).max_batch_size()
    assert found["h100"]["max_batch_size"] == int(0.8 * fitting)
    assert found["h100"]["max_seq_len"] == 24576
    assert found["h100"]["cuda_graph_config"]["batch_sizes"][-1] == int(0.8 * fitting)
    assert 1 <= found["a10g"]["max_batch_size"] < found["h100"]["max_batch_size"]


def test_what_does_not_fit_is_no_feasible_plan(tmp_path: Path) -> None:
    source = write_sparse(tmp_path / "9b", "nemotron-nano-9b-v2", "bf16")
    options = ("--gpu", "a10g", "--max-seq-len", "900000", "-o", str(tmp_path / "b"))
    code, stderr = run(str(source), *options)
    assert code == 4, stderr
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("kv_cache", "gpu", "dtype"),
    [
        ("none", "a10g", "auto"),
        ("none", "h100", "auto"),
        ("fp8", "h100", "fp8"),
        ("fp8", "l4", "fp8"),
        ("fp8", "a10g", None),
        ("fp8", "a100", None),
        ("int8", "a10g", None),
        ("int8", "h100", None),
    ],
)
def test_the_cache_is_the_checkpoint_s_or_the_gpu_is_refused(
    kv_cache: str, gpu: str, dtype: str | None, tmp_path: Path
) -> None:
    """`auto` is the checkpoint's own type to TensorRT-LLM, which Ampere does not compute in."""
    command = ["quantize", "tiny", "--recipe", "int8-wo", "--kv-cache", kv_cache, "-q"]
    command += ["--calibration", str(tmp_path / "c"), "--sequences", "2"]
    result = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "q")])
    assert result.exit_code == 0, result.output
    code, stderr = run(str(tmp_path / "q"), "--gpu", gpu, "-o", str(tmp_path / "b"))
    words = " ".join(stderr.split())
    if dtype is None:
        assert code == 2, words
        assert f"{kv_cache.upper()} KV cache" in words and "--kv-cache none" in words
        assert not (tmp_path / "b").exists()
    else:
        assert code == 0, words
        assert read_llm_args(tmp_path / "b/llm_args.yaml")["kv_cache_config"]["dtype"] == dtype


@pytest.mark.parametrize("size", [1, 2, 3, 8, 31, 96, 129, 500, 2048])
def test_a_padded_batch_is_not_much_larger_than_the_real_one(size: int) -> None:
    sizes = graph_batch_sizes(size)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == size
    for real in range(1, size + 1):
        padded = min(s for s in sizes if s >= real)
        assert padded - real < max(8, real)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_batchsize": 1}, "unknown key 'max_batchsize'; did you mean 'max_batch_size'"),
        ({"kv_cache_config": {"enable_blocks_reuse": True}}, "kv_cache_config.enable_blocks_reuse"),
        ({"kv_cache_config": {"enable_block_reuse": True}}, "enable_block_reuse: Input should be"),
        ({"tensor_parallel_size": 3}, "tensor_parallel_size: Input should be 1, 2, 4 or 8"),
        ({"max_num_tokens": 7}, "max_num_tokens must be at least max_batch_size"),
        ({"max_seq_len": "1024"}, "max_seq_len: Input should be a valid integer"),
        ({"cuda_graph_config": {"batch_sizes": [9]}}, "must not exceed max_batch_size"),
        (
            {"cuda_graph_config": {"batch_sizes": [1], "max_batch_size": 1}},
            "unknown key 'cuda_graph_config.max_batch_size'",
        ),
    ],
)
def test_what_tensorrt_llm_would_not_take_is_refused(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    args = llm_args(Limits(8, 1024, 128), has_fp8_cache=False).model_dump()
    path = tmp_path / "llm_args.yaml"
    path.write_text(yaml.safe_dump(args | changes))
    with pytest.raises(ArtefactError, match=message):
        read_llm_args(path)


def test_code_is_trusted_only_when_asked(tmp_path: Path) -> None:
    for flag, expected in (((), False), (("--trust-remote-code",), True)):
        target = tmp_path / str(expected)
        code, _ = run("tiny", "--gpu", "h100", *flag, "-o", str(target))
        assert code == 0
        assert read_llm_args(target / "llm_args.yaml")["trust_remote_code"] is expected


def test_a_state_s_options_are_written_and_for_models_that_have_one(tmp_path: Path) -> None:
    options = ("--gpu", "h100", "--prefix-snapshots", "256", "--avg-seq-len", "300")
    code, stderr = run("tiny", *options, "-o", str(tmp_path / "b"))
    assert code == 0, stderr
    cache = read_llm_args(tmp_path / "b/llm_args.yaml")["kv_cache_config"]
    assert cache["enable_block_reuse"] is True and cache["avg_seq_len"] == 300
    assert cache["mamba_state_config"] == {"periodic_snapshot_interval": 256}
    for option in ("--prefix-snapshots", "--avg-seq-len"):
        command = ("tiny-dense", "--gpu", "h100", option, "64", "-o", str(tmp_path / "d"))
        code, stderr = run(*command)
        assert code == 2 and f"{option} is for models with a recurrent state" in stderr


def test_a_hybrid_s_bundle_says_how_prefixes_are_reused(tmp_path: Path) -> None:
    """In a second file, for versions that keep states; the first one is for every version."""
    code, stderr = run("tiny", "--gpu", "h100", "-o", str(tmp_path / "b"))
    assert code == 0 and "1.3.0rc24" in stderr and "1.2 keeps none" in stderr
    plain, reusing = (read_llm_args(tmp_path / "b" / name) for name in (ARGS_FILE, REUSE_FILE))
    cache = plain.pop("kv_cache_config")
    states = {"periodic_snapshot_interval": 2048, "additional_snapshot_offsets_from_end": [15]}
    assert reusing.pop("kv_cache_config") == cache | {
        "enable_block_reuse": True,
        "mamba_state_config": states,
    }
    assert reusing == plain and cache["enable_block_reuse"] is False
    assert agents_load().system_tokens == 2048
    for number, more in enumerate((("tiny", "--prefix-snapshots", "0"), ("tiny-dense",),
                                   ("tiny", "--prefix-snapshots", "64"))):  # fmt: skip
        target = tmp_path / str(number)
        code, stderr = run(*more, "--gpu", "h100", "-o", str(target))
        assert code == 0 and not (target / REUSE_FILE).exists() and "1.2 keeps none" not in stderr
        is_reused = read_llm_args(target / ARGS_FILE)["kv_cache_config"]["enable_block_reuse"]
        assert is_reused is ("64" in more)


@pytest.mark.parametrize("model", ["tiny", "tiny-dense"])
@pytest.mark.parametrize("word", ["", " /think", " /no_think"])
def test_the_next_turn_has_all_but_the_opening_of_the_prompt(model: str, word: str) -> None:
    """So a state that is kept before the opening serves the next turn, whatever it answered."""
    folder = TINY_MODELS[model]
    template, tokenizer = load_chat_template(folder), load_tokenizer(folder)
    assert template is not None and tokenizer is not None
    turns = [{"role": "user", "content": f"What is 2 + 2?{word}"}]
    answer = {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\nIt is 4."}
    more = [*turns, answer, {"role": "user", "content": f"And 3 + 3?{word}"}]
    prompt, following = (tokenizer.encode(template.render(chat)) for chat in (turns, more))
    num_kept = len(prompt) - bundle.opening_tokens(folder)
    assert num_kept > 5 and prompt[:num_kept] == following[:num_kept]


@pytest.mark.parametrize(("model", "sizes"), [("nano_9b", (1, 2, 4, 8)), ("tiny", (1, 2))])
def test_how_many_gpus_may_share_a_model(
    model: str, sizes: tuple[int, ...], tmp_path: Path
) -> None:
    """The 9B has 8 groups, 128 Mamba heads, 40 attention heads; the tiny model 2, 6 and 6."""
    folder = TINY_MODELS["tiny"]
    if model == "nano_9b":
        folder = write_sparse(tmp_path / "9b", "nemotron-nano-9b-v2", "bf16")
    assert bundle.tp_sizes(open_checkpoint(folder)) == sizes
