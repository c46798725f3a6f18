"""Activations: by hand, and against what the real compiler says that its plans need."""

from pathlib import Path
from typing import Any

import pytest

from nemotrt.engines.backends.tensorrt.compile import compiler
from nemotrt.engines.backends.tensorrt.graph import export as graph_export
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.random_checkpoint import write_checkpoint
from nemotrt.profiles.planning.memory.workspace import PromptCall, workspace_bytes
from nemotrt.profiles.planning.sources.known_models import load_model
from nemotrt.profiles.planning.time.engine_profile import Scratch

BF16 = NumberFormat.BF16


def test_of_a_dense_model_by_hand() -> None:
    # Residual 2 x 4096 and gate, up, product 3 x 12288 channels of 2 bytes for 10 tokens.
    expected = 10 * 2 * (2 * 4096 + 3 * 12288)
    model = load_model("qwen3-8b")
    assert workspace_bytes(model, BF16, PromptCall(10, 100), 1, Scratch.FUSED) == expected
    # Beside it K and V of 100 tokens for each of 32 heads, and a mask for the 10 tokens.
    copies = 100 * (2 * 4096 + 10) * 2
    graph = workspace_bytes(model, BF16, PromptCall(10, 100), 1, Scratch.GRAPH)
    assert graph == expected + copies
    three = workspace_bytes(model, BF16, PromptCall(10, 100, 3), 1, Scratch.GRAPH)
    assert three == 3 * graph


def one_layer(pattern: str, mamba_heads: int) -> dict[str, Any]:
    return {
        "model_type": "nemotron_h",
        "hybrid_override_pattern": pattern,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "mamba_num_heads": mamba_heads,
        "mamba_head_dim": 80,
        "ssm_state_size": 128,
        "n_groups": 8,
        "conv_kernel": 4,
        "chunk_size": 128,
        "vocab_size": 256,
        "tie_word_embeddings": False,
    }


@pytest.mark.parametrize(
    ("pattern", "mamba_heads", "num_tokens", "max_seq_len"),
    [("M", 128, 512, 1024), ("M", 128, 256, 1024), ("M", 32, 512, 1024), ("*", 8, 512, 8192)],
)
def test_against_the_compiler(
    tmp_path: Path, pattern: str, mamba_heads: int, num_tokens: int, max_seq_len: int
) -> None:
    config = one_layer(pattern, mamba_heads)
    write_checkpoint(tmp_path / "checkpoint", config)
    checkpoint = open_checkpoint(tmp_path / "checkpoint")
    # One sequence a prompt call, as in a call of 512 tokens; attention has no kernel for batch 1.
    limits = Limits(1 if pattern == "M" else 8, max_seq_len, num_tokens)
    folder = tmp_path / "engine"
    folder.mkdir()
    graph_export.export(checkpoint, folder, limits, Precision.BF16, is_embedded=False)
    compiled = compiler.compile_plan(folder, limits, "8.6")
    prompt = PromptCall(num_tokens, max_seq_len)
    planned = workspace_bytes(parse_model_config(config), BF16, prompt, 8, Scratch.GRAPH)
    assert planned == pytest.approx(max(compiled.report.activation_bytes), rel=0.3)
