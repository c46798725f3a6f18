"""What a tokenizer's files carry beside its vocabulary: the ids are transformers', whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.text.tokenizer import TOKENIZER_FILES, load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import NemotrtError
from nemotrt.quantize.calibration.texts import token_windows

TINY = TINY_MODELS["tiny"]
TRUNCATION = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
PADDING: dict[str, Any] = {
    "strategy": {"Fixed": 9},
    "direction": "Left",
    "pad_to_multiple_of": None,
    "pad_id": 12,
    "pad_type_id": 0,
    "pad_token": "<SPECIAL_12>",
}
ADDED = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
flag = st.sampled_from([None, False, True])
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "add_bos_token": flag,
        "add_eos_token": flag,
        "split_special_tokens": st.booleans(),
        "bos_token": st.sampled_from(["<s>", "<|begin|>", None]),
        "eos_token": st.sampled_from(["</s>", "<|end|>"]),
        "pad_token": st.sampled_from(
            ["<|pad|>", {"__type": "AddedToken", "content": "<|pad|>", **ADDED}]
        ),
        "image_token": st.just("<|image|>"),
        "additional_special_tokens": st.just(["<|tool|>", "<SPECIAL_20>"]),
        "added_tokens_decoder": st.just(
            {
                "4097": {"content": "<|b|>", "special": True, **ADDED},
                "4096": {"content": "<|a|>", "special": False, **ADDED},
            }
        ),
        "clean_up_tokenization_spaces": st.booleans(),
        "add_prefix_space": st.booleans(),
    },
)
PIECES = [
    "<s>",
    "</s>",
    "<|end|>",
    "<|tool|>",
    "<|a|>",
    "<|b|>",
    "<|image|>",
    "<SPECIAL_12>",
    " ",
    "Hi",
    "é 日 ,",
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=12).map("".join)


@pytest.fixture(scope="module")
def original() -> dict[str, dict[str, Any]]:
    names = ("tokenizer.json", "tokenizer_config.json")
    return {name: json.loads((TINY / name).read_text()) for name in names}


@pytest.fixture
def folder(tmp_path: Path, original: dict[str, dict[str, Any]]) -> Callable[..., Path]:
    """Return a function that writes a folder of tokenizer files with changes."""

    def write(tokenizer: dict[str, Any], config: dict[str, Any], *, dropped: Any = ()) -> Path:
        told = {k: v for k, v in original["tokenizer_config.json"].items() if k not in dropped}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(told | config))
        (tmp_path / "tokenizer.json").write_text(json.dumps(original["tokenizer.json"] | tokenizer))
        return tmp_path

    return write


@given(
    text=TEXTS,
    truncation=st.sampled_from([None, TRUNCATION]),
    padding=st.sampled_from([None, PADDING]),
    config=CONFIGS,
    special_map=st.sampled_from([{"eos_token": "<|mapped|>"}, {"eos_token": "</s>"}]),
)
@example(text="a long text " * 9, truncation=TRUNCATION, padding=PADDING, config={}, special_map={})
@example(text="Hi", truncation=None, padding=None, config={"add_eos_token": True}, special_map={})
@example(
    text="<s>Hi",
    truncation=None,
    padding=None,
    config={"split_special_tokens": True},
    special_map={},
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_ids_are_those_of_transformers(
    folder: Callable[..., Path],
    text: str,
    truncation: Any,
    padding: Any,
    config: dict[str, Any],
    special_map: dict[str, str],
) -> None:
    state = {"truncation": truncation, "padding": padding}
    path = folder(state, config, dropped=("added_tokens_decoder",))
    for name, special in special_map.items():
        (path / "special_tokens_map.json").write_text(json.dumps({name: special}))
    reference, found = AutoTokenizer.from_pretrained(path), load_tokenizer(path)
    assert found is not None
    for add_special in (True, False):
        expected = reference.encode(text, add_special_tokens=add_special)
        assert found.encode(text, add_special_tokens=add_special) == expected
    ids = found.encode(text)
    for skip in (True, False):
        assert found.decode(ids, skip_special_tokens=skip) == reference.decode(
            ids, skip_special_tokens=skip
        )


def test_a_long_prompt_stays_whole(folder: Callable[..., Path]) -> None:
    path = folder({"truncation": TRUNCATION | {"max_length": 512}, "padding": PADDING}, {})
    tokenizer, plain = load_tokenizer(path), load_tokenizer(TINY)
    assert tokenizer is not None and plain is not None
    text = "word " * 3000
    assert len(tokenizer.encode(text)) > 3000
    assert tokenizer.encode(text) == plain.encode(text)
    # What is handed on, to the library of grammars, has no such state either.
    again = Backend.from_str(tokenizer.to_json())
    assert again.encode(text).ids == plain.encode(text)
    assert again.encode("Hi").ids == plain.encode("Hi")


def test_merges_are_not_dropped_at_random(
    folder: Callable[..., Path], original: dict[str, dict[str, Any]]
) -> None:
    model = original["tokenizer.json"]["model"] | {"dropout": 0.9}
    tokenizer, plain = load_tokenizer(folder({"model": model}, {})), load_tokenizer(TINY)
    assert tokenizer is not None and plain is not None
    text = "several ordinary words of text"
    assert tokenizer.encode(text) == plain.encode(text)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"split_special_tokens": 1}, "split_special_tokens must be true or false, got 1"),
        ({"added_tokens_decoder": {"x": {}}}, "added_tokens_decoder is malformed"),
        ({"added_tokens_decoder": [3]}, "added_tokens_decoder is malformed"),
    ],
)
def test_malformed_configs_are_refused(
    folder: Callable[..., Path], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(NemotrtError, match=message):
        load_tokenizer(folder({}, config))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The tiny model's folder, whose small files may be changed."""
    for name in ("config.json", *TOKENIZER_FILES):
        (tmp_path / name).write_bytes((TINY / name).read_bytes())
    (tmp_path / "model.safetensors").symlink_to(TINY / "model.safetensors")
    return tmp_path


def _open(path: Path) -> object:
    return load_tokenizer(path)


def _build(path: Path) -> object:
    return build_engine(path, path / "engine", BuildSpec("native"))


def _windows(path: Path) -> object:
    return token_windows(path, ["some text"] * 20, 8, 2)


@pytest.mark.parametrize("use", [_open, _build, _windows])
def test_a_tokenizer_beyond_the_embedding_is_refused(
    checkpoint: Path, use: Callable[[Path], object]
) -> None:
    path = checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": "<|pad|>"}))
    message = "has '<|pad|>' as id 4096, config.json a vocab_size of 4096"
    with pytest.raises(NemotrtError) as caught:
        use(checkpoint)
    assert message in caught.value.message
    assert not (checkpoint / "engine").exists()


@pytest.mark.parametrize("use", [_open, _build])
@pytest.mark.parametrize("bad", [4096, [2, 9999], -1, True, "2", [None]])
def test_ends_that_are_no_tokens_are_refused(
    checkpoint: Path, use: Callable[[Path], object], bad: Any
) -> None:
    path = checkpoint / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": bad}))
    with pytest.raises(NemotrtError, match=r"generation_config.json: eos_token_id (must|has)"):
        use(checkpoint)
