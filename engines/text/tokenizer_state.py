"""What a tokenizer.json carries for another use, and what tokenizer_config.json adds to it.

Source: transformers 5.24, tokenization_utils_tokenizers.py; tests compare the ids with its.
"""

from collections.abc import Iterator
from typing import Any

from nemotrt.engines.text.tokenizer_config import special_token
from nemotrt.errors import ArtefactError

SPECIAL_LISTS = ("additional_special_tokens", "extra_special_tokens")


def settle(backend: Any, config: dict[str, Any], source: str) -> None:
    """Make the `tokenizers.Tokenizer` give a text's ids as transformers does, whole and unpadded.

    Truncation, padding and the merges' dropout are left over from training: they are off. The
    tokens of tokenizer_config.json, `config`, apply; `source` names it in errors. Its add_bos_token
    and add_eos_token don't: tokenizer.json's post-processor says what begins and ends a text.

    Raises:
        ArtefactError: a flag or a token of the config is of the wrong type.
    """
    backend.no_truncation()
    backend.no_padding()
    if getattr(backend.model, "dropout", None) is not None:
        backend.model.dropout = None
    backend.encode_special_tokens = _flag(config, "split_special_tokens", source)
    _add_tokens(backend, config, source)


def _flag(config: dict[str, Any], name: str, source: str) -> bool:
    """Return a flag of the config; absent and null are false."""
    value = config.get(name)
    if value is not None and not isinstance(value, bool):
        raise ArtefactError(f"{source}: {name} must be true or false, got {value!r}.")
    return bool(value)


def _add_tokens(backend: Any, config: dict[str, Any], source: str) -> None:
    """Add the config's tokens that tokenizer.json lacks, and make its special ones special."""
    from tokenizers import AddedToken

    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    try:
        listed = [
            AddedToken(**{key: token[key] for key in _TOKEN_KEYS if key in token})
            for _, token in sorted(
                (config.get("added_tokens_decoder") or {}).items(), key=lambda item: int(item[0])
            )
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{source}: added_tokens_decoder is malformed: {error!r}.") from error
    backend.add_tokens([token for token in listed if token.content not in known])
    backend.add_special_tokens(
        [
            AddedToken(text, special=True, normalized=False)
            for text in dict.fromkeys(_special_texts(config))
            if text not in {token.content for token in listed} | known
        ]
    )


_TOKEN_KEYS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")


def _special_texts(config: dict[str, Any]) -> Iterator[str]:
    """Yield the texts of the special tokens that the config names."""
    for name in config:
        if name.endswith("_token") and (text := special_token(config, name)) is not None:
            yield text
    for name in SPECIAL_LISTS:
        listed = config.get(name)
        values = listed.values() if isinstance(listed, dict) else listed or ()
        yield from (value for value in values if isinstance(value, str))
