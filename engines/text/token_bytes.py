"""The bytes that a token stands for, as the tokenizer's decoder reads its vocabulary entry."""

import re
from collections.abc import Callable, Iterator
from typing import Any

BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")
NEUTRAL = ("Fuse", "Strip")  # these change a text's joints and ends, not what one token says
ToBytes = Callable[[str], bytes]


def token_reader(decoder: Any) -> ToBytes | None:
    """Return what reads a vocabulary entry under tokenizer.json's `decoder`.

    None for decoders whose tokens are whole characters only (WordPiece, CTC, ..): what they decode
    to alone are their bytes.
    """
    steps = list(_steps(decoder))
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        return _from_alphabet
    if not kinds or not kinds <= {"ByteFallback", "Metaspace", "Replace", *NEUTRAL}:
        return None
    replacements: list[tuple[str, str]] = []
    for step in steps:
        if step["type"] == "Metaspace":
            replacements.append((step["replacement"], " "))
        if step["type"] == "Replace":
            pattern = step["pattern"].get("String")
            if pattern is None:  # a regular expression in another dialect than Python's
                return None
            replacements.append((pattern, step["content"]))

    def read(entry: str) -> bytes:
        found = BYTE_TOKEN.fullmatch(entry) if "ByteFallback" in kinds else None
        if found is not None:
            return bytes.fromhex(found[1])
        for old, new in replacements:
            entry = entry.replace(old, new)
        return entry.encode()

    return read


def drops_first_space(decoder: Any, entry: str) -> bool:
    """Whether a decoded text lacks the space that `entry`, its first token, begins with.

    Strip drops any space; Metaspace drops its own sign alone, not a byte token's space.
    """
    return any(
        (step["type"] == "Strip" and step["content"] == " " and step["start"] > 0)
        or (
            step["type"] == "Metaspace"
            and step.get("prepend_scheme", "always") != "never"
            and entry.startswith(step["replacement"])
        )
        for step in _steps(decoder)
    )


def _steps(decoder: Any) -> Iterator[dict[str, Any]]:
    """Yield the decoders of a sequence, or the one that there is."""
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for step in decoder["decoders"]:
            yield from _steps(step)
    else:
        yield decoder


def _alphabet() -> dict[str, int]:
    """Return the byte of each character of the byte-level alphabet.

    Source: GPT-2's encoder.py, bytes_to_unicode: what prints is itself, the rest come from 256 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + index): byte for index, byte in enumerate(others)
    }


ALPHABET = _alphabet()


def _from_alphabet(entry: str) -> bytes:
    """Return the bytes of a byte-level entry; an added token may be plain text."""
    if all(character in ALPHABET for character in entry):
        return bytes(ALPHABET[character] for character in entry)
    return entry.encode()
