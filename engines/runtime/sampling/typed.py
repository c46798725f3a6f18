"""A setting's value as its annotation says, or a ConfigError: a request may come from anybody.

What Python would take for something else is the reason: the text "END" is a sequence of three stop
strings, True is the number 1, and NaN is neither above nor below a limit.
"""

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from types import UnionType
from typing import Any

from nemotrt.errors import ConfigError

WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}


def typed(name: str, kind: Any, value: Any) -> Any:
    """Return `value` as a `kind`: int, float, bool, either of None, or a tuple of such.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(kind, UnionType):  # int | None
        return None if value is None else typed(name, kind.__args__[0], value)
    if kind in WORDS:
        return _one(name, kind, value)
    if isinstance(value, str):
        value = (value,)
    elif isinstance(value, Mapping):
        value = value.items()
    elif not isinstance(value, Iterable):
        raise ConfigError(f"{name} must be a sequence, got {value!r}.")
    inner, _ = kind.__args__  # tuple[inner, ...]
    return tuple(_member(name, inner, item) for item in value)


def _member(name: str, kind: Any, value: Any) -> Any:
    """Return a member of a sequence, which may be a pair."""
    if kind in WORDS:
        return _one(name, kind, value)
    kinds = kind.__args__
    if not isinstance(value, tuple | list) or len(value) != len(kinds):
        raise ConfigError(f"{name} must be pairs, got {value!r} among them.")
    return tuple(_one(name, one, item) for one, item in zip(kinds, value, strict=True))


def _one(name: str, kind: type, value: Any) -> Any:
    """Return a plain value; numpy's numbers become Python's."""
    is_bool = isinstance(value, bool)
    if kind is int and isinstance(value, Integral) and not is_bool:
        return int(value)
    if kind is float and isinstance(value, Real) and not is_bool:
        return value if isinstance(value, int | float) else float(value)
    if (kind is bool and is_bool) or (kind is str and isinstance(value, str)):
        return value
    raise ConfigError(f"{name} must be {WORDS[kind]}, got {value!r}.")
