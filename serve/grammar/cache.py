"""Compiled grammars by what they were made of: agents send the same tools at each turn."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from nemotrt.errors import ConfigError

MAX_GRAMMARS = 64
MAX_CHARACTERS = 1 << 20  # of the guides; a compiled one takes some hundred bytes a character


class GrammarCache:
    """The matchers used last, never advanced: each request gets a copy. Thread-safe.

    A refusal is kept too: a grammar that took too long is not tried again.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._found: OrderedDict[bytes, tuple[Any | ConfigError, int]] = OrderedDict()
        self._num_characters = 0

    def has(self, kind: str, guide: str) -> bool:
        """Whether a copy or a refusal is there at once."""
        with self._lock:
            return _digest(kind, guide) in self._found

    def matcher(self, kind: str, guide: str, compile_guide: Callable[[], Any]) -> Any:
        """Return a matcher at the grammar's beginning, or raise the ConfigError that refused it."""
        key = _digest(kind, guide)
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return _copy(self._found[key][0])
        try:
            found = compile_guide()
        except ConfigError as error:
            found = error.with_traceback(None)
        with self._lock:
            self._keep(key, found, len(guide))
            return _copy(found)

    def _keep(self, key: bytes, found: Any | ConfigError, size: int) -> None:
        """Add what came of a guide; forget what was not asked for longest."""
        if key not in self._found:
            self._found[key] = found, size
            self._num_characters += size
        while len(self._found) > MAX_GRAMMARS or self._num_characters > MAX_CHARACTERS:
            _, (_, forgotten) = self._found.popitem(last=False)
            self._num_characters -= forgotten


def _copy(found: Any | ConfigError) -> Any:
    """Return a matcher's copy, or raise a refusal anew."""
    if isinstance(found, ConfigError):
        raise ConfigError(found.message)
    return found.deep_copy()


def _digest(kind: str, guide: str) -> bytes:
    """Return the key of a guide."""
    return hashlib.sha256(f"{kind}\0{guide}".encode("utf-8", "surrogatepass")).digest()
