"""A random bfloat16 checkpoint with the 9B's widths, and a calibration of it; both in seconds."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.model.tensor_names import expected_shapes, linear_names, of_any_expert
from nemotrt.quantize.calibration.calibration import Calibration, identity, save_calibration
from nemotrt.quantize.calibration.observe import Observation

SHARD_BYTES = 1 << 30
FULL_PATTERN = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"
# NVIDIA-Nemotron-Nano-9B-v2's config.json: every width is the real one.
WIDTHS = {
    "model_type": "nemotron_h",
    "hidden_size": 4480,
    "intermediate_size": 15680,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "mamba_num_heads": 128,
    "mamba_head_dim": 80,
    "ssm_state_size": 128,
    "n_groups": 8,
    "conv_kernel": 4,
    "chunk_size": 128,
    "tie_word_embeddings": False,
}


def raw_config(layers: str, vocab: int) -> dict[str, object]:
    """Return config.json for a layer pattern in the hub's letters."""
    return WIDTHS | {"hybrid_override_pattern": layers, "vocab_size": vocab}


def num_bytes(layers: str, vocab: int) -> int:
    """Return the size of the weights."""
    shapes = expected_shapes(parse_model_config(raw_config(layers, vocab)))
    return sum(2 * int(np.prod(shape)) for shape in shapes.values())


def write_checkpoint(folder: Path, layers: str, vocab: int) -> None:
    """Write the checkpoint in shards of about 1 GiB."""
    raw = raw_config(layers, vocab)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(raw))
    rng = np.random.default_rng(0)
    sample = rng.standard_normal(1 << 24, np.float32) * np.float32(0.02)
    pool = (sample.view(np.uint32) >> 16).astype(np.uint16)
    weight_map: dict[str, str] = {}
    for number, part in enumerate(_shards(expected_shapes(parse_model_config(raw)))):
        name = f"model-{number + 1:05}.safetensors"
        weight_map |= dict.fromkeys(part, name)
        header, end = {}, 0
        for tensor, shape in part.items():
            begin, end = end, end + 2 * int(np.prod(shape))
            entry = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
            header[tensor] = entry
        text = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            while end:
                begin = int(rng.integers(0, 1 << 20))
                piece = pool[begin : begin + end // 2]
                file.write(piece.tobytes())
                end -= piece.nbytes
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _shards(shapes: dict[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Yield parts of `shapes` of about SHARD_BYTES."""
    part, size = {}, 0
    for name, shape in shapes.items():
        part[name] = shape
        size += 2 * int(np.prod(shape))
        if size >= SHARD_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part


def write_calibration(source: Path, target: Path) -> None:
    """Write a calibration of checkpoint `source` that saw random activations; no model runs."""
    checkpoint, rng = open_checkpoint(source), np.random.default_rng(0)
    observations = {}
    for name in linear_names(checkpoint.config):
        seen = Observation.empty(checkpoint[name].shape[1])
        seen.add(rng.lognormal(size=(4, len(seen.channel_amax))).astype(np.float32), name)
        observations[of_any_expert(name)] = seen
    save_calibration(Calibration(identity(checkpoint), 1, 4, "random", observations), target)
