"""GGUF files: every type to the bit, every transform of the converter undone, damage named."""

import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from nemotrt.cli import main
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.checkpoint.gguf import folder
from nemotrt.engines.checkpoint.gguf.blocks import BY_WORD
from nemotrt.engines.checkpoint.gguf.file import read_gguf
from nemotrt.engines.checkpoint.gguf.tensors import hub_tensors
from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError, NemotrtError
from support.examples import up_to

FIXTURES = Path(__file__).parents[1] / "quantize/fixtures"
BLOCKS = FIXTURES / "blocks.gguf"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of unfolded files alone: the compiled step and llama.cpp's source stay where they are."""
    monkeypatch.setattr(folder, "user_cache", lambda: tmp_path / "cache")


@pytest.mark.parametrize("word", BY_WORD)
def test_a_type_is_decoded_as_ggml_does(word: str) -> None:
    """Quantized by ggml's own code; the numbers beside them are gguf's own dequantization."""
    tensors = dict(hub_tensors(read_gguf(BLOCKS)))
    expected = tensors[f"{word}.expected"].map()
    np.testing.assert_array_equal(tensors[word].map().astype(np.float32), expected)
    np.testing.assert_array_equal(tensors[word].rows(slice(1, 2)).astype(np.float32), expected[1:2])
    assert np.abs(expected).max() > 2


def damaged(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "x.gguf"
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda raw: b"", "asks for 4 bytes"),
        (lambda raw: b"GGML" + raw[4:], "does not begin with GGUF"),
        (lambda raw: raw[:4] + struct.pack("<I", 1) + raw[8:], "version 1"),
        (lambda raw: raw[:8] + struct.pack("<Q", 1 << 60) + raw[16:], "claims 1152921504606846976"),
        (lambda raw: raw[:16] + struct.pack("<Q", 1 << 60) + raw[24:], "claims"),
        (lambda raw: raw[:24] + struct.pack("<Q", 1 << 40) + raw[32:], "a text of 1099511627776"),
        (lambda raw: raw[:-100], "is truncated: tensor"),
        (lambda raw: raw.replace(b"nemotron_h", b"nemotron_x", 1), "'nemotron_x' model"),
    ],
)
def test_a_file_that_is_not_whole_is_named(tmp_path: Path, edit, message: str) -> None:  # type: ignore[no-untyped-def]
    path = damaged(tmp_path, edit(BLOCKS.read_bytes()))
    with pytest.raises(NemotrtError, match=message):
        list(hub_tensors(read_gguf(path)))


@settings(max_examples=up_to(200), deadline=None)
@given(st.integers(0, 1400), st.binary(min_size=1, max_size=8))
def test_any_damage_of_the_header_is_an_error_of_ours_or_none(
    tmp_path_factory: pytest.TempPathFactory, place: int, found: bytes
) -> None:
    raw = bytearray(BLOCKS.read_bytes()[:20000])
    raw[place : place + len(found)] = found
    path = damaged(tmp_path_factory.mktemp("fuzz"), bytes(raw))
    try:
        tensors = dict(hub_tensors(read_gguf(path)))
    except NemotrtError:
        return
    for ref in tensors.values():
        ref.map()


# What llama.cpp's converter wrote of a random checkpoint: benchmarks/cpu/llama_convert.py, q8_0.
MODELS = ("nemotron_h", "qwen3")


def compare(found: Checkpoint, source: Path, step: float) -> None:
    """Every tensor is the source's, up to rounding to blocks of int8 where it is in them."""
    expected = load_file(source / "model.safetensors")
    assert set(found.used_names()) == set(expected)
    for name, tensor in expected.items():
        theirs = tensor.float().numpy()
        ours = found.floats(name)
        assert ours.shape == theirs.shape, name
        limit = step * np.abs(theirs).max() if theirs.ndim == 2 else 1e-6
        np.testing.assert_allclose(ours, theirs, atol=limit, err_msg=name)


@pytest.mark.parametrize("model_type", MODELS)
def test_a_model_is_the_checkpoint_that_it_was_converted_from(model_type: str) -> None:
    source, file = FIXTURES / f"gguf_{model_type}", FIXTURES / f"gguf_{model_type}.gguf"
    opened = checkpoint_folder(str(file))
    assert checkpoint_folder(str(file)) == opened  # the second time it is there
    found = open_checkpoint(opened)
    told, ours = read_model_config(source), read_model_config(opened)
    for field in ("layers", "hidden_size", "q_size", "kv_size", "norm_eps", "rope_theta"):
        assert getattr(ours, field) == getattr(told, field), field
    if told.mamba is not None and ours.mamba is not None:  # the file does not tell the chunks
        assert replace(ours.mamba, chunk_size=told.mamba.chunk_size) == told.mamba
    assert found.quant.precision is None
    assert any("GGUF Q8_0" in note for note in found.notes())
    compare(found, source, 1 / 240)


PLAN = ["plan", "--gpu", "a10g", "--isl=64", "--osl=64"]


@pytest.mark.parametrize("command", [["inspect"], PLAN])
def test_commands_take_the_file(command: list[str]) -> None:
    name, *options = command
    file = str(FIXTURES / "gguf_nemotron_h.gguf")
    result = CliRunner().invoke(main, [name, file, *options, "--json"])
    assert result.exit_code == 0, result.stderr
    raw = json.loads(result.stdout)
    if name == "inspect":
        assert raw["format"] == "gguf" and raw["algo"] == "GGUF Q8_0"
        assert raw["loaders"]["nemotrt build"].startswith("yes")
    else:
        assert raw["precision"] == "int8-wo"


def test_quantize_refuses_it_with_the_cure(tmp_path: Path) -> None:
    file = str(FIXTURES / "gguf_qwen3.gguf")
    command = ["quantize", file, "--recipe", "int8-wo", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "give the Hugging Face checkpoint that the file was converted from" in " ".join(
        result.stderr.split()
    )


def test_several_files_are_ambiguous(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.gguf").write_bytes(BLOCKS.read_bytes())
    with pytest.raises(ConfigError, match="2 GGUF files"):
        checkpoint_folder(str(tmp_path))


def test_a_file_without_its_models_metadata_is_named() -> None:
    with pytest.raises(ArtefactError, match="token_embd"):
        checkpoint_folder(str(BLOCKS))


CONVERT = ROOT / "benchmarks/cpu/llama_convert.py"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
@pytest.mark.parametrize("name", ["tiny", "tiny-dense"])
def test_the_trained_models_by_llama_cpps_converter(name: str, kind: str, tmp_path: Path) -> None:
    """Weights, and ids of texts by the vocabulary alone: nothing is beside the file."""
    sys.path.insert(0, str(CONVERT.parent))
    from llama_build import source_folder  # type: ignore[import-not-found]

    source, target = TINY_MODELS[name], tmp_path / "out" / f"{name}.gguf"
    target.parent.mkdir()
    command = [sys.executable, str(CONVERT), str(source_folder()), str(source), kind, str(target)]
    subprocess.run([*command, "vocabulary"], check=True, capture_output=True)
    opened = checkpoint_folder(str(target))
    compare(open_checkpoint(opened), source, 1 / 240 if kind == "q8_0" else 1e-3)
    ours, theirs = load_tokenizer(opened), load_tokenizer(source)
    assert ours is not None and theirs is not None
    texts = [path.read_text()[:4000] for path in (source.parent / "heldout").glob("*.txt")]
    for text in [*texts, "  two  spaces\n\n\tand tabs 12345 don't", "<SPECIAL_12>"]:
        found, expected = (t.encode(text, add_special_tokens=False) for t in (ours, theirs))
        assert found == expected
    engine = str(tmp_path / "engine")
    built = CliRunner().invoke(main, ["build", str(target), "-o", engine, "--max-seq-len", "128"])
    assert built.exit_code == 0, built.stderr
    few = ["--sequences", "1", "--sequence-tokens", "64", "--json"]
    told = CliRunner().invoke(main, ["evaluate", engine, "--against", str(source), *few])
    assert told.exit_code == 0, told.stderr
    assert all(text["mean_kl_divergence"] < 2e-3 for text in json.loads(told.stdout)["texts"])
