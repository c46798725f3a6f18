"""The shipped models: real, small, awkward like the 9B, and trained."""

import lzma
import math
from pathlib import Path

import numpy as np
import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.onnxruntime.engine import OnnxRuntimeEngine
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.model_config import Activation, LayerKind
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.sampling.params import log_softmax
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import FOLDER, TINY_MODELS

SEGMENTS = 8
SEGMENT_BYTES = 4096


@pytest.mark.parametrize("name", TINY_MODELS)
def test_size_and_special_tokens(name: str) -> None:
    folder = TINY_MODELS[name]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12e6
    checkpoint = open_checkpoint(folder)
    assert 3e6 <= sum(math.prod(ref.shape) for ref in checkpoint.tensors.values()) <= 6e6
    assert {ref.dtype for ref in checkpoint.tensors.values()} == {"BF16"}
    tokenizer = load_tokenizer(folder)
    assert tokenizer is not None
    assert tokenizer.vocab_size == checkpoint.config.vocab_size
    for token, number in {"<s>": 1, "</s>": 2, "<SPECIAL_10>": 10, "<SPECIAL_12>": 12}.items():
        assert tokenizer.encode(token, add_special_tokens=False) == [number]


def test_the_hybrid_has_the_9bs_awkward_traits() -> None:
    config = open_checkpoint(TINY_MODELS["tiny"]).config
    assert config.mamba is not None
    assert (config.mamba.head_dim, config.mamba.state_size, config.mamba.conv_kernel) == (
        80,
        128,
        4,
    )
    assert config.mamba.num_groups > 1
    assert config.num_key_value_heads < config.num_attention_heads
    assert config.q_size != config.hidden_size
    assert config.rope_theta is None and not config.tie_word_embeddings
    assert config.activation is Activation.RELU2
    assert set(config.layers) == set(LayerKind) - {LayerKind.MOE}


def segments(text: bytes) -> list[str]:
    """Return evenly spaced pieces of a text, cut at line ends."""
    step = len(text) // SEGMENTS
    pieces = []
    for start in range(0, step * SEGMENTS, step):
        begin = text.index(b"\n", start) + 1
        end = text.index(b"\n", begin + SEGMENT_BYTES) + 1
        pieces.append(text[begin:end].decode())
    return pieces


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("name", ["tiny", "tiny-dense"])
def test_held_out_text_costs_fewer_bits_than_xz(name: str, language: str, tmp_path: Path) -> None:
    """Our engine's own logits, each piece from an empty context, against `xz -9` on all of them."""
    pieces = segments((FOLDER / "heldout" / f"{language}.txt").read_bytes())
    tokenizer = load_tokenizer(TINY_MODELS[name])
    assert tokenizer is not None
    sequences = [tokenizer.encode(piece) for piece in pieces]
    longest = max(map(len, sequences))
    limits = Limits(SEGMENTS, longest, 1)
    spec = BuildSpec(precision=Precision.BF16, limits=limits)
    build_engine(TINY_MODELS[name], tmp_path / "e", spec)
    engine = OnnxRuntimeEngine(tmp_path / "e", limits, num_threads=1)
    slots = [engine.allocate() for _ in sequences]
    bits = 0.0
    for position in range(longest - 1):
        live = [i for i, ids in enumerate(sequences) if len(ids) > position + 1]
        logits = engine.step([Feed(slots[i], [sequences[i][position]]) for i in live])
        for i, row in zip(live, logits, strict=True):
            bits -= log_softmax(row)[sequences[i][position + 1]] / math.log(2)
    whole = "".join(pieces).encode()
    packed = len(lzma.compress(whole, preset=9)) * 8
    assert bits / len(whole) < 0.85 * packed / len(whole)
    assert np.isfinite(bits)
