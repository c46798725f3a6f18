"""What tokens stand for: joined, they are the text that the tokenizers library decodes."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend
from transformers.convert_slow_tokenizer import bytes_to_unicode

from nemotrt.engines.text.token_bytes import ALPHABET
from nemotrt.engines.text.tokenizer import Tokenizer, load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from support.examples import up_to


def shipped(name: str) -> Tokenizer:
    tokenizer = load_tokenizer(TINY_MODELS[name])
    assert tokenizer is not None
    return tokenizer


def sentencepiece(decoder: Any) -> Tokenizer:
    """A tokenizer in Llama's way: spaces are U+2581, unknown characters are their bytes."""
    pieces = [
        "<unk>",
        "▁the",
        "▁",
        "a",
        "b",
        "é",
        "ん",
        "▁ab",
        *(f"<0x{i:02X}>" for i in range(256)),
    ]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    backend = Backend(models.BPE(vocab, [], byte_fallback=True, unk_token="<unk>"))
    backend.decoder = decoder
    backend.add_special_tokens(["<s>"])
    backend.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return Tokenizer(backend)


def wordpiece() -> Tokenizer:
    vocab = {"[UNK]": 0, "the": 1, "##re": 2, "é": 3, "##ん": 4}
    backend = Backend(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return Tokenizer(backend)


LLAMA = decoders.Sequence(
    [
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ]
)


def metaspace(scheme: str) -> Any:
    return decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace("▁", scheme)])


SHIPPED = {name: shipped(name) for name in TINY_MODELS}
PIECES = {
    "llama": sentencepiece(LLAMA),
    "always": sentencepiece(metaspace("always")),
    "never": sentencepiece(metaspace("never")),
}


def joined(tokenizer: Tokenizer, ids: list[int]) -> str:
    texts = [token for token in ids if not tokenizer.is_special(token)]
    shown = b"".join(
        tokenizer.shown_bytes(token, is_first=index == 0) for index, token in enumerate(texts)
    )
    return shown.decode(errors="replace")


def test_the_alphabet_is_transformers() -> None:
    assert {character: byte for byte, character in bytes_to_unicode().items()} == ALPHABET


@pytest.mark.parametrize("name", SHIPPED)
@given(text=st.text(max_size=60))
@settings(max_examples=up_to(300), deadline=None)
def test_a_texts_tokens_joined_are_its_utf8(name: str, text: str) -> None:
    """No special token is written in such a text, so every byte is some token's own."""
    tokenizer = SHIPPED[name]
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(tokenizer.token_bytes(token) or b"" for token in ids) == text.encode()


@pytest.mark.parametrize("name", SHIPPED)
@given(ids=st.lists(st.integers(0, 4095), max_size=12))
@settings(max_examples=up_to(500), deadline=None)
def test_any_ids_joined_are_what_the_library_decodes(name: str, ids: list[int]) -> None:
    """Broken characters too, and special tokens, which the text does not show."""
    assert joined(SHIPPED[name], ids) == SHIPPED[name].decode(ids)


@pytest.mark.parametrize("name", PIECES)
@given(data=st.data())
@settings(max_examples=up_to(300), deadline=None)
def test_pieces_and_bytes_joined_are_what_the_library_decodes(
    name: str, data: st.DataObject
) -> None:
    """Whole characters: of broken ones the library replaces the whole run of bytes."""
    tokenizer = PIECES[name]
    first_byte = tokenizer._backend.token_to_id("<0x00>")
    ids: list[int] = []
    for part in data.draw(st.lists(st.integers(0, 6) | st.sampled_from([264, 265]) | st.text())):
        ids += [part] if isinstance(part, int) else [first_byte + byte for byte in part.encode()]
    assert joined(tokenizer, ids) == tokenizer.decode(ids)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_id_has_bytes_of_its_own(name: str) -> None:
    tokenizer = SHIPPED[name]
    found = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
    assert None not in found and len(set(found)) == tokenizer.vocab_size
    for token, own in enumerate(found):
        assert own is not None
        text = tokenizer.decode([token], skip_special_tokens=False)
        assert own.decode(errors="replace") == text


def test_bytes_of_other_families() -> None:
    llama = PIECES["llama"]
    ids = [
        llama._backend.token_to_id(piece) for piece in ("▁the", "<0xE3>", "ん", "<think>", "<s>")
    ]
    assert [llama.token_bytes(token) for token in ids] == [
        b" the",
        b"\xe3",
        "ん".encode(),
        b"<think>",
        b"<s>",
    ]
    assert llama.shown_bytes(ids[0], is_first=True) == b"the"
    assert llama.shown_bytes(ids[4], is_first=False) == b""
    words = wordpiece()
    assert [words.token_bytes(token) for token in (1, 3)] == [b"the", "é".encode()]


def test_an_id_beyond_the_vocabulary_stands_for_nothing() -> None:
    """Embeddings are often padded: the model may rank ids that the tokenizer lacks."""
    tokenizer = SHIPPED["tiny"]
    assert tokenizer.token_bytes(tokenizer.vocab_size) is None
    assert tokenizer.shown_bytes(tokenizer.vocab_size, is_first=False) == b""


def test_the_reader_is_chosen_by_the_file(tmp_path: Path) -> None:
    """A tokenizer loaded from its folder reads as the one in memory."""
    (tmp_path / "tokenizer.json").write_text(PIECES["llama"].to_json(), encoding="utf-8")
    loaded = load_tokenizer(tmp_path)
    assert loaded is not None and loaded.token_bytes(9) == b"\x01"
    assert json.loads(loaded.to_json())["decoder"]["type"] == "Sequence"


@pytest.mark.parametrize("name", PIECES)
def test_a_first_byte_that_is_a_space(name: str) -> None:
    """Metaspace drops its own sign alone, Strip any space."""
    tokenizer = PIECES[name]
    space = tokenizer._backend.token_to_id("<0x20>")
    assert joined(tokenizer, [space, space]) == tokenizer.decode([space, space])
