"""The checkpoint's own tokenizer: text to ids, ids to text, and the ids that end a sequence."""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from nemotrt import needs
from nemotrt.engines.model.config_fields import Fields
from nemotrt.engines.model.families import DEFAULT, ChatFormat, family_of
from nemotrt.engines.model.hf_config import language_config
from nemotrt.engines.text.token_bytes import ToBytes, drops_first_space, token_reader
from nemotrt.engines.text.tokenizer_config import (
    read_tokenizer_config,
    special_token,
    template_sources,
)
from nemotrt.engines.text.tokenizer_state import settle
from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError
from nemotrt.files.text_file import GET_AGAIN, json_object_if_there

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)
SLOW_FILES = ("tokenizer.model", "tekken.json", "vocab.json")


class Tokenizer:
    """A `tokenizers` tokenizer from a folder's tokenizer.json."""

    def __init__(
        self, backend: Any, eos_ids: Sequence[int] = (), chat: ChatFormat = DEFAULT
    ) -> None:
        """Wrap a `tokenizers.Tokenizer`; `chat` is how the model writes tags."""
        self._backend = backend
        self.eos_ids = tuple(eos_ids)
        self.chat = chat

    @classmethod
    def from_json(cls, text: str) -> "Tokenizer":
        """Return the tokenizer that `to_json` wrote."""
        from tokenizers import Tokenizer as Backend

        return cls(Backend.from_str(text))

    @property
    def vocab_size(self) -> int:
        """Number of ids, with the added tokens."""
        return int(self._backend.get_vocab_size())

    def token_id(self, text: str) -> int | None:
        """Return the id of the token that is spelled `text` in the vocabulary, None without one."""
        token: int | None = self._backend.token_to_id(text)
        return token

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids that stand for something, with the added tokens."""
        return tuple(self._backend.get_vocab(with_added_tokens=True).values())

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of `text`; special tokens written in it become their ids.

        Other Python threads run meanwhile, which only the library's batched call lets them.

        Raises:
            ConfigError: the text has what is no character.
        """
        try:
            (encoding,) = self._backend.encode_batch([text], add_special_tokens=add_special_tokens)
        except TypeError as error:  # half a surrogate pair, as of bytes that the locale can't read
            raise ConfigError(
                "the text is not UTF-8: give it so, in a locale that reads it (LC_ALL=C.UTF-8)."
            ) from error
        ids: list[int] = encoding.ids
        return ids

    def token_ends(self, text: str) -> list[int]:
        """Return where in `text` each of its tokens ends, in order."""
        (encoding,) = self._backend.encode_batch([text], add_special_tokens=False)
        return [end for _, end in encoding.offsets]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def is_special(self, token: int) -> bool:
        """Whether a decoded text shows nothing of the token."""
        return token in self._special_ids and token not in self._special_tags

    def token_bytes(self, token: int) -> bytes | None:
        """Return what a token stands for, None for an id that is in no vocabulary."""
        entry: str | None = self._backend.id_to_token(token)
        if entry is None:
            return None
        if self._reader is None:
            return self.decode([token], skip_special_tokens=False).encode()
        return self._reader(entry)

    def shown_bytes(self, token: int, *, is_first: bool, skip_special_tokens: bool = True) -> bytes:
        """Return what a token adds to a decoded text, b"" for a special one that is skipped.

        `is_first` says that it is the text's first token: some decoders drop its space.
        """
        if skip_special_tokens and self.is_special(token):
            return b""
        shown = self.token_bytes(token) or b""
        if is_first and shown[:1] == b" ":
            entry = self._backend.id_to_token(token)
            return shown[1:] if drops_first_space(self._decoder, entry) else shown
        return shown

    @cached_property
    def _decoder(self) -> Any:
        """The `decoder` of tokenizer.json."""
        return json.loads(self.to_json())["decoder"]

    @cached_property
    def _reader(self) -> ToBytes | None:
        return token_reader(self._decoder)

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        added = self._backend.get_added_tokens_decoder()
        return frozenset(token for token, entry in added.items() if entry.special)

    def to_json(self) -> str:
        """Return the content of tokenizer.json."""
        text: str = self._backend.to_str()
        return text

    def decoder(self, *, skip_special_tokens: bool = True) -> Callable[[int], str]:
        """Return a function from the next id to the text that it completes, "" if none yet.

        Special tokens that are skipped have no text, but for the family's tags.
        """
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=skip_special_tokens)
        tags = self._special_tags

        def text(token: int) -> str:
            return tags.get(token) or stream.step(self._backend, token) or ""

        return text

    @cached_property
    def _special_tags(self) -> dict[int, str]:
        """The family's tags that are special tokens: text all the same, by id."""
        ids = {tag: self.token_id(tag) for tag in (*self.chat.think, *self.chat.calls.tags)}
        return {i: tag for tag, i in ids.items() if i is not None and not self.decode([i])}


def load_tokenizer(folder: Path) -> Tokenizer | None:
    """Return the tokenizer in `folder`, or None if the folder has none.

    Raises:
        ArtefactError: the tokenizer is damaged, or has ids beyond the model's vocabulary.
        ConfigError: an end-of-sequence id is beyond it.
        EnvironmentUnfitError: it needs transformers to be converted, which is not installed.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        from tokenizers import Tokenizer as Backend

        try:
            backend = Backend.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise ArtefactError(f"{path} is not a tokenizer: {error}; {GET_AGAIN}.") from error
        settle(backend, read_tokenizer_config(folder), str(folder / "tokenizer_config.json"))
        return _checked(folder, backend)
    if any((folder / name).is_file() for name in SLOW_FILES):
        return _convert(folder)
    return None


def check_tokenizer(folder: Path) -> None:
    """Raise unless the tokenizer in `folder`, if there is one, fits the model beside it.

    A tokenizer that only transformers reads is left to whoever opens it.

    Raises:
        ArtefactError: it is damaged, or has ids beyond the model's vocabulary.
        ConfigError: an end-of-sequence id is beyond it.
    """
    if (folder / "tokenizer.json").is_file():
        load_tokenizer(folder)
    else:
        eos_ids(folder, lambda text: None)


def eos_ids(folder: Path, token_to_id: Callable[[str], int | None]) -> tuple[int, ...]:
    """Return the ids that end a sequence: generation_config.json's and the tokenizer's own.

    Raises:
        ConfigError: an id is no token of the vocabulary that config.json gives.
    """
    path = folder / "generation_config.json"
    found = Fields(json_object_if_there(path), str(path)).token_ids(
        "eos_token_id", _vocab_size(folder)
    )
    eos = special_token(read_tokenizer_config(folder), "eos_token")
    if eos is not None and (token := token_to_id(eos)) is not None:
        found = (*found, token)
    return tuple(dict.fromkeys(found))


def _checked(folder: Path, backend: Any) -> Tokenizer:
    """Return the tokenizer if the model has a row for each of its ids.

    Raises:
        ArtefactError: an id is beyond the vocabulary, whose row a model would look up in vain.
    """
    vocab_size = _vocab_size(folder)
    text, largest = max(backend.get_vocab().items(), key=lambda item: item[1], default=("", -1))
    if vocab_size is not None and largest >= vocab_size:
        raise ArtefactError(
            f"{folder}: the tokenizer has {text!r} as id {largest}, config.json a vocab_size of "
            f"{vocab_size}: the model has no embedding for it. Take the tokenizer that belongs to "
            "the model, or resize the model's embeddings."
        )
    templates = template_sources(folder, read_tokenizer_config(folder)).values()
    return Tokenizer(backend, eos_ids(folder, backend.token_to_id), family_of(templates))


def _vocab_size(folder: Path) -> int | None:
    """Return the vocabulary that config.json gives the model, None where there is none."""
    path = folder / "config.json"
    size = language_config(json_object_if_there(path), str(path))[0].get("vocab_size")
    return size if isinstance(size, int) and not isinstance(size, bool) else None


def _convert(folder: Path) -> Tokenizer:
    """Let transformers convert a tokenizer that has no tokenizer.json."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise EnvironmentUnfitError(
            f"{folder} has no tokenizer.json; converting its tokenizer needs transformers: "
            f"{needs.TRANSFORMERS.cure}."
        ) from None
    fast = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    settle(fast.backend_tokenizer, {}, str(folder))
    return _checked(folder, fast.backend_tokenizer)
