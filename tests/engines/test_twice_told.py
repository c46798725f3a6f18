"""A key that stands twice in a file from outside: refused by name, whichever reader takes it."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemotrt.engines.checkpoint.checkpoint import weight_map
from nemotrt.engines.checkpoint.lora.config import read_adapter_config
from nemotrt.engines.checkpoint.quantized.config import flat_quantization, read_quant_config
from nemotrt.engines.checkpoint.stored.safetensors_file import read_header
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.text.tokenizer_config import advised_sampling, read_tokenizer_config
from nemotrt.errors import ArtefactError, ConfigError, NemotrtError
from nemotrt.files.json_lines import json_lines
from nemotrt.files.text_file import parse_yaml, read_json

READERS: dict[str, Callable[[Path], Any]] = {
    "config.json": read_model_config,
    "generation_config.json": advised_sampling,
    "tokenizer_config.json": read_tokenizer_config,
    "special_tokens_map.json": read_tokenizer_config,
    "model.safetensors.index.json": weight_map,
    "hf_quant_config.json": read_quant_config,
    "adapter_config.json": read_adapter_config,
}


@pytest.mark.parametrize("name", READERS)
def test_a_json_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"deep": [{"r": 1, "r": 2}]}')
    with pytest.raises(ArtefactError, match=rf"{name}.*the key 'r' stands twice in one object"):
        READERS[name](tmp_path)


def test_what_config_json_says_of_quantization(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {}, "quantization_config": {}}')
    with pytest.raises(ArtefactError, match="'quantization_config' stands twice"):
        flat_quantization(tmp_path)


def test_a_safetensors_header(tmp_path: Path) -> None:
    """The safetensors package takes one of the two in silence."""
    entry = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    head = f"{{{entry}, {entry}}}".encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(head)) + head + bytes(4))
    with pytest.raises(ArtefactError, match="x: its header is malformed: the key 'a' stands twice"):
        read_header(tmp_path / "x")


def test_a_line_of_json_lines() -> None:
    with pytest.raises(ValueError, match="line 2 is not JSON: the key 'text' stands twice"):
        list(json_lines(b'{"text": "a"}\n{"text": "a", "text": "b"}\n'))


def test_a_yaml_file() -> None:
    """A key that is merged in from elsewhere may be told anew: YAML's merge is for that."""
    with pytest.raises(ConfigError, match="f is not YAML: the key 'a' stands twice in one mapping"):
        parse_yaml("b: {a: 1, a: 2}", "f")
    merged = parse_yaml("x: &x {a: 1}\ny: {<<: *x, a: 2}\n", "f")
    assert merged == {"x": {"a": 1}, "y": {"a": 2}}


@pytest.mark.parametrize("name", ["layer_norm_epsilon", "routed_scaling_factor", "time_step_limit"])
def test_a_number_that_no_field_holds(name: str, tmp_path: Path) -> None:
    """10^400 is valid JSON, and no float."""
    (tmp_path / "config.json").write_text(json.dumps({name: [0, 1]}).replace("1", "1" + "0" * 400))
    with pytest.raises(NemotrtError, match="an integer of 401 digits"):
        read_model_config(tmp_path)
    (tmp_path / "config.json").write_text(f'{{"a": {2**64 - 1}}}')
    assert read_json(tmp_path / "config.json") == {"a": 2**64 - 1}
