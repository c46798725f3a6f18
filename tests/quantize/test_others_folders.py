"""Whole checkpoints by others' writers: our logits are those of their own loaders."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from compressed_tensors.compressors.base import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import load_file, save_file

from nemotrt.cli import main
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.tensor_names import blocks, linear_names, model_names
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.quantize.calibration.forward import embed, final_logits, run_block
from nemotrt.quantize.contracts.contract import inspect_quantized
from nemotrt.quantize.quality.running.fake_quant import QuantizedEmitter
from support.peers import peer_python
from support.reference import from_folder

IDS = np.arange(2 * 24).reshape(2, 24) * 7 % 96
TINY = TINY_MODELS["tiny"]


def logits(folder: Path) -> np.ndarray:
    checkpoint = open_checkpoint(folder)
    hidden = embed(checkpoint, IDS)
    for block in blocks(checkpoint.config):
        list(run_block(checkpoint, block, hidden, QuantizedEmitter))
    head = checkpoint.floats(model_names(checkpoint.config).lm_head)
    return np.stack([final_logits(checkpoint, row, head) for row in hidden])


def compress(source: Path, target: Path, told: dict[str, Any]) -> None:
    """Store a checkpoint's linears by compressed-tensors' own compressor, in groups of 16."""
    args = QuantizationArgs(**told)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    names = set(linear_names(open_checkpoint(source).config))
    shutil.copytree(source, target)
    found: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if name not in names:
            found[name] = tensor
            continue
        groups = tensor.float().reshape(tensor.shape[0], -1, 16)
        scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
        state = {"weight": tensor.float(), "weight_scale": scale.to(tensor.dtype)}
        module = name.removesuffix(".weight")
        stored = compressor.compress(state, scheme)
        found |= {f"{module}.{leaf}": value.contiguous() for leaf, value in stored.items()}
    save_file(found, target / "model.safetensors")
    config = json.loads((target / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": told, "input_activations": None}
        },
        "ignore": ["lm_head"],
    }
    (target / "config.json").write_text(json.dumps(config))


def test_transformers_multiplies_by_the_same_weights(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_checkpoint("qwen3", num_shards=1, dtype=torch.float32)
    told = {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": 16,
    }
    compress(source, tmp_path / "out", told)
    found = inspect_quantized(tmp_path / "out")
    assert (found.format, found.num_quantized, found.num_kept) == ("compressed-tensors", 14, 0)
    assert found.loaders["nemotrt build"].startswith("yes")
    with torch.no_grad():
        model = from_folder(tmp_path / "out")
        expected = model(torch.from_numpy(IDS), use_cache=False).logits.float().numpy()
    ours = logits(tmp_path / "out")
    assert np.linalg.norm(ours - expected) < 1e-4 * np.linalg.norm(expected)
    assert np.linalg.norm(ours - logits(source)) > 1e-3 * np.linalg.norm(expected)


LLM_COMPRESSOR = """
import sys
from llmcompressor import model_free_ptq
model_free_ptq(sys.argv[1], sys.argv[2], scheme=sys.argv[3], max_workers=1, device="cpu",
    ignore=["re:.*conv1d", "lm_head", "re:.*embeddings", "re:.*norm.*", "re:.*[qkvo]_proj",
            "re:.*out_proj"])  # whose inputs are no whole groups of 128
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "is_own", "kl"),
    [("W8A8", True, 0.01), ("W8A16", False, 0.01), ("W4A16", True, 0.2)],
)
def test_llm_compressors_folders_run(scheme: str, is_own: bool, kl: float, tmp_path: Path) -> None:
    """Inspected, evaluated against their base and built natively, as they are."""
    target = str(tmp_path / "theirs")
    command = [str(peer_python("llm-compressor")), "-c", LLM_COMPRESSOR, str(TINY), target, scheme]
    subprocess.run(command, check=True, capture_output=True)
    assert inspect_quantized(Path(target)).faults == ()
    assert (open_checkpoint(Path(target)).quant.precision is not None) is is_own
    texts = ["--sequences", "2", "--sequence-tokens", "64", "--json"]
    told = CliRunner().invoke(main, ["evaluate", target, "--against", str(TINY), *texts])
    assert told.exit_code == 0, told.stderr
    assert all(0 < t["mean_kl_divergence"] < kl for t in json.loads(told.stdout)["texts"])
    built = CliRunner().invoke(main, ["build", target, "-o", str(tmp_path / "engine")])
    assert built.exit_code == 0, built.stderr
    assert is_own or "its linears are read as floats, dequantized" in built.stderr
