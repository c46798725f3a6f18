"""What a user or a program reads of the backends stays as it is: tables, keys, names, in order.

The texts of --help are held by docs/reference/commands.md (tests/test_docs.py).
"""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotrt.cli import main

SURFACE = Path(__file__).parent / "surface"
BACKENDS = ["onnxruntime", "native", "tensorrt", "tensorrt-llm", "edge-llm", "tensorrt-llm-1.2"]
MANIFEST_KEYS = [
    "schema_version",
    "backend",
    "gpu",
    "compute_capability",
    "precision",
    "executed",
    "limits",
    "model",
    "checkpoint",
    "weights",
    "tools",
    "options",
    "files",
]
# backend, arguments -> executed, tools, options, its own files
MANIFESTS = {
    "onnxruntime": (
        [],
        (True, ["onnx", "onnxruntime"], ["is_exact"], ["model.onnx", "model.onnx.data"]),
    ),
    "native": (
        [],
        (
            True,
            ["nemotrt", "native step"],
            ["kv_cache", "ssm_state"],
            ["program.json", "weights.bin"],
        ),
    ),
    "tensorrt-llm": (
        ["--gpu", "h100"],
        (False, [], ["is_code_trusted", "tp_size"], ["llm_args.yaml", "llm_args_reuse.yaml"]),
    ),
}
PACKAGES = {
    "onnxruntime": "run engines on the CPU",
    "onnx": "write the graph",
    "httptools": "measure a server",
    "prometheus_client": "metrics",
    "nvidia-ml-py": "read the GPU's sensors",
    "tokenizers": "text to tokens",
    "tensorrt-rtx-cu13-bindings": "compile TensorRT plans without a GPU",
    "tensorrt-rtx-cu13-libs": "compile TensorRT plans without a GPU",
    "cuda-python": "run TensorRT plans on the GPU host",
    "tensorrt": "compile and run TensorRT plans on the GPU host",
    "llguidance": "grammars",
    "starlette": "the endpoint",
    "tritonclient": "gRPC to tritonserver",
    "uvicorn": "the endpoint's server",
    "opentelemetry-exporter-otlp-proto-http": "send spans to a collector",
    "opentelemetry-sdk": "spans of requests",
    "nvidia-cuda-nvrtc": "compile our CUDA kernels on the GPU host",
    "tensorrt-llm": "serve with TensorRT-LLM on the GPU host",
    "transformers": "convert tokenizers that have no tokenizer.json",
    "lm-eval": "tasks of lm-eval",
    "pyarrow": "tables as Parquet",
    "matplotlib": "plots as PNG",
}
ABILITIES = [
    "build and run on the CPU (onnxruntime)",
    "run faster on the CPU (native)",
    "keep Mamba states in huge pages (native)",
    "choose tokens in compiled code, not by NumPy",
    "compile plans for A10G, A100 here (tensorrt)",
    "run plans here (tensorrt)",
    "compile and run plans with ordinary TensorRT here (tensorrt)",
    "choose tokens on the GPU (tensorrt)",
    "compile plans with Mamba plugins here (tensorrt)",
    "serve with TensorRT-LLM here",
    "export for TensorRT Edge-LLM here (edge-llm)",
    "serve with Triton Inference Server",
    "serve (OpenAI endpoint)",
    "trace requests (OpenTelemetry)",
    "measure a server",
    "measure the GPU (NVML)",
    "keep what is compiled in the cache",
    "hold a 9B checkpoint in bf16 in this folder",
    "open the 9B in int8-wo on the CPU",
]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_support_table() -> None:
    assert run("build", "--list") == (SURFACE / "build_list.txt").read_text(encoding="utf-8")


def test_the_choices_of_a_dry_run(tmp_path: Path) -> None:
    found = json.loads(run("build", "tiny", "-o", tmp_path / "e", "--dry-run", "--json"))
    assert found == {
        "schema_version": 1,
        "backend": found["backend"],
        "gpu": None,
        "precision": "bf16",
        "limits": {"max_batch_size": 8, "max_seq_len": 4096, "chunk_tokens": 128},
        "is_exact": False,
        "is_embedded": False,
        "workspace_bytes": 0,
        "tp_size": 1,
        "is_code_trusted": False,
        "prefix_snapshots": None,
        "avg_seq_len": None,
        "max_loras": None,
        "max_lora_rank": None,
        "mamba": "native",
        "ssm_state": "float32",
        "kv_cache": "float32",
    }


@pytest.mark.parametrize("backend", MANIFESTS)
def test_the_manifest(backend: str, tmp_path: Path) -> None:
    arguments, (executed, tools, options, files) = MANIFESTS[backend]
    limits = ["--max-batch-size", 1, "--max-seq-len", 64]
    command = ["build", "tiny", "-o", tmp_path / "e", "--backend", backend, "--json", "--quiet"]
    found = json.loads(run(*command, *limits, *arguments))
    written = json.loads((tmp_path / "e" / "engine.json").read_text(encoding="utf-8"))
    assert list(found) == list(written) == MANIFEST_KEYS
    assert (found["backend"], found["executed"]) == (backend, executed)
    assert sorted(found["tools"]) == sorted(tools)
    assert sorted(found["options"]) == options
    assert set(files) <= set(written["files"])


def test_an_unknown_backend_lists_the_known_ones(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["build", "tiny", "-o", "e", "--backend", "onnx"])
    assert result.exit_code == 2
    assert all(f"'{name}'" in result.stderr for name in BACKENDS)


def test_doctors_keys_and_names() -> None:
    found = json.loads(run("doctor", "--json"))
    assert list(found) == [
        "schema_version",
        "python",
        "platform",
        "cpu_cores",
        "cpu_flags",
        "memory_bytes",
        "gpus",
        "gpu_note",
        "driver",
        "packages",
        "abilities",
    ]
    assert {package["name"]: package["purpose"] for package in found["packages"]} == PACKAGES
    assert [package["name"] for package in found["packages"]] == list(PACKAGES)
    assert [ability["name"] for ability in found["abilities"]] == ABILITIES
