"""The checkpoint's own tokenizer: text to ids, ids to text, and the ids that end a sequence."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nemotrt.engines.config_fields import Fields
from nemotrt.engines.tokenizer_state import settle, special_token
from nemotrt.errors import ArtefactError, EnvironmentUnfitError

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

    def __init__(self, backend: Any, eos_ids: Sequence[int] = ()) -> None:
        """Wrap a `tokenizers.Tokenizer`."""
        self._backend = backend
        self.eos_ids = tuple(eos_ids)

    @property
    def vocab_size(self) -> int:
        """Number of ids, with the added tokens."""
        return int(self._backend.get_vocab_size())

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of `text`; special tokens written in it become their ids."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of `ids`; bytes that are no UTF-8 become U+FFFD."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def to_json(self) -> str:
        """Return the content of tokenizer.json."""
        text: str = self._backend.to_str()
        return text

    def decoder(self) -> Callable[[int], str]:
        """Return a function from the next id to the text that it completes, "" if none yet."""
        from tokenizers.decoders import DecodeStream

        stream = DecodeStream(skip_special_tokens=True)
        return lambda token: stream.step(self._backend, token) or ""


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
            raise ArtefactError(f"{path} is not a tokenizer: {error}.") from error
        settle(backend, _tokenizer_config(folder), str(folder / "tokenizer_config.json"))
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
    found = Fields(_json(path), str(path)).token_ids("eos_token_id", _vocab_size(folder))
    eos = special_token(_tokenizer_config(folder), "eos_token")
    if eos is not None and (token := token_to_id(eos)) is not None:
        found = (*found, token)
    return tuple(dict.fromkeys(found))


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json; in older folders special_tokens_map.json names the tokens."""
    config = _json(folder / "tokenizer_config.json")
    if "added_tokens_decoder" in config:
        return config
    return config | _json(folder / "special_tokens_map.json")


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
    return Tokenizer(backend, eos_ids(folder, backend.token_to_id))


def _vocab_size(folder: Path) -> int | None:
    """Return the vocabulary that config.json gives the model, None where there is none."""
    size = _json(folder / "config.json").get("vocab_size")
    return size if isinstance(size, int) and not isinstance(size, bool) else None


def _json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`, {} if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtefactError(f"{path} is not JSON: {error}.") from error
    return value if isinstance(value, dict) else {}


def _convert(folder: Path) -> Tokenizer:
    """Let transformers convert a tokenizer that has no tokenizer.json."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise EnvironmentUnfitError(
            f"{folder} has no tokenizer.json; converting its tokenizer needs transformers: "
            "pip install 'nemotrt[transformers]'."
        ) from None
    fast = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    settle(fast.backend_tokenizer, {}, str(folder))
    return _checked(folder, fast.backend_tokenizer)
