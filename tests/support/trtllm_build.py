"""A bundle for TensorRT-LLM 1.2, built by the command."""

from pathlib import Path

from click.testing import CliRunner

from nemotrt.cli import main


def convert(source: Path, target: Path, tp_size: int, gpu: str = "h100") -> Path:
    words = ["build", "--backend", "tensorrt-llm-1.2", str(source), "--gpu", gpu, "--quiet"]
    words += ["--max-batch-size", "4", "--max-seq-len", "256", "--tp-size", str(tp_size)]
    result = CliRunner().invoke(main, [*words, "-o", str(target)])
    assert result.exit_code == 0, result.stderr
    return target / "trtllm_checkpoint"
