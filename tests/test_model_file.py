"""The first fault of a file, as one line with its file and key."""

from pathlib import Path

import pytest

from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.files.model_file import Strict, json_model, yaml_model


class Inner(Strict):
    width: int


class Outer(Strict):
    name: str
    inner: Inner


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{nam: a, inner: {width: 1}}", "x.yaml: unknown key 'nam'; did you mean 'name'?"),
        (
            "{name: a, inner: {widht: 1}}",
            "x.yaml: unknown key 'inner.widht'; did you mean 'width'?",
        ),
        ("{name: a, inner: {width: b}}", "x.yaml: inner.width: Input should be a valid integer"),
        ("{name: a}", "x.yaml: inner: Field required."),
        ("[1]", "x.yaml must be a mapping of keys, got list."),
        ("2026-13-45", "x.yaml is not YAML: "),
        ("[" * 100_000, "x.yaml is not YAML: "),
        ("", "x.yaml must be a mapping of keys, got NoneType."),
    ],
)
def test_yaml(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        yaml_model(Outer, text, "x.yaml")
    assert caught.value.message.startswith(line) and "\n" not in caught.value.message


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[]", b'{"name": 3}', b"[" * 100_000])
def test_json(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(data)
    for path in (tmp_path / "x.json", tmp_path / "absent.json", tmp_path):
        with pytest.raises(ArtefactError, match=str(path)) as caught:
            json_model(Outer, path)
        assert "\n" not in caught.value.message
