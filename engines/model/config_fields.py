"""Typed access to a config dictionary, and the sizes that all families spell alike."""

import math
from collections.abc import Mapping
from typing import Any

from nemotrt.errors import ConfigError


class Fields:
    """Typed access to a config dictionary; every fault names the file and the field."""

    def __init__(
        self, raw: dict[str, Any], source: str, aliases: Mapping[str, str] | None = None
    ) -> None:
        """Wrap `raw`, which came from `source`; an older name in `aliases` overrides the newer."""
        found = {new: old for old, new in (aliases or {}).items() if raw.get(old) is not None}
        self.raw = raw | {new: raw[old] for new, old in found.items()}
        self.source = source
        self._spelled = found

    def fail(self, name: str, problem: str) -> ConfigError:
        """Return the error that says what is wrong with field `name`, as the file spells it."""
        return ConfigError(f"{self.source}: {self._spelled.get(name, name)} {problem}.")

    def has(self, name: str) -> bool:
        """Whether field `name` is present and not null."""
        return self.raw.get(name) is not None

    def get(self, name: str) -> Any:
        """Return field `name`, which must be present."""
        if not self.has(name):
            raise self.fail(name, "is missing")
        return self.raw[name]

    def text(self, name: str) -> str:
        """Return a string field."""
        value = self.get(name)
        if not isinstance(value, str):
            raise self.fail(name, f"must be a string, got {value!r}")
        return value

    def size(self, name: str, default: int | None = None) -> int:
        """Return a positive integer field below 2^31."""
        value = self.get(name) if default is None or self.has(name) else default
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            raise self.fail(name, f"must be a positive integer, got {value!r}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return a positive finite number field."""
        value = self.get(name) if default is None or self.has(name) else default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(name, f"must be a number, got {value!r}")
        if not (math.isfinite(value) and value > 0):
            raise self.fail(name, f"must be positive and finite, got {value!r}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """Return a boolean field."""
        value = self.raw.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(name, f"must be true or false, got {value!r}")
        return value

    def token_ids(self, name: str, vocab_size: int | None) -> tuple[int, ...]:
        """Return a field of one token id, several or none; `vocab_size` None: of no known model."""
        value = self.raw.get(name)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(token) is int and token >= 0 for token in ids):
            raise self.fail(name, f"must be token ids, got {value!r}")
        if vocab_size is not None and (beyond := [token for token in ids if token >= vocab_size]):
            raise self.fail(name, f"has {beyond[0]}, which is no token: vocab_size is {vocab_size}")
        return tuple(ids)

    def refuse(self, name: str, allowed: Any) -> None:
        """Raise unless field `name` is absent or has the one value that is supported."""
        if self.has(name) and self.raw[name] != allowed:
            raise self.fail(name, f"must be {allowed!r}: {self.raw[name]!r} is not supported")


def _attention(fields: Fields, num_kv_heads: int) -> dict[str, Any]:
    """Return the attention dimensions, checked against each other; null K/V heads: as many as Q."""
    num_heads = fields.size("num_attention_heads")
    is_absent = "num_key_value_heads" not in fields.raw
    num_kv_heads = fields.size("num_key_value_heads", num_kv_heads if is_absent else num_heads)
    if num_heads % num_kv_heads:
        raise fields.fail("num_key_value_heads", f"({num_kv_heads}) must divide {num_heads} heads")
    hidden = fields.size("hidden_size")
    return {
        "hidden_size": hidden,
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_kv_heads,
        "head_dim": fields.size("head_dim", fields.size("attention_head_dim", 128)),
    }


def shared_sizes(fields: Fields, *, num_kv_heads: int, max_positions: int) -> dict[str, Any]:
    """Return what both architectures spell alike; they differ in what an absent field means.

    Source of these and of all defaults here: the config classes of transformers 5.24.
    """
    vocab_size = fields.size("vocab_size")
    return {
        "model_type": fields.text("model_type"),
        "vocab_size": vocab_size,
        "intermediate_size": fields.size("intermediate_size"),
        "max_position_embeddings": fields.size("max_position_embeddings", max_positions),
        "eos_token_ids": fields.token_ids("eos_token_id", vocab_size),
        "dtype": str(fields.raw.get("dtype") or fields.raw.get("torch_dtype") or "bfloat16"),
        **_attention(fields, num_kv_heads),
    }
