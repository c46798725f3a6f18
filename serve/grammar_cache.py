"""Compiled grammars by what they were made of: agents send the same tools at each turn."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

MAX_GRAMMARS = 64
MAX_CHARACTERS = 1 << 20  # of the guides; a compiled one takes some hundred bytes a character


class GrammarCache:
    """The matchers used last, never advanced: each request gets a copy. Thread-safe."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._matchers: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()
        self._num_characters = 0

    def has(self, kind: str, guide: str) -> bool:
        """Whether a copy is there at once."""
        with self._lock:
            return _digest(kind, guide) in self._matchers

    def matcher(self, kind: str, guide: str, compile_guide: Callable[[], Any]) -> Any:
        """Return a matcher at the grammar's beginning; what `compile_guide` raises is not kept."""
        key = _digest(kind, guide)
        with self._lock:
            found = self._matchers.get(key)
            if found is not None:
                self._matchers.move_to_end(key)
                return found[0].deep_copy()
        matcher = compile_guide()
        with self._lock:
            if key not in self._matchers:
                self._matchers[key] = matcher, len(guide)
                self._num_characters += len(guide)
            while len(self._matchers) > MAX_GRAMMARS or self._num_characters > MAX_CHARACTERS:
                _, (_, size) = self._matchers.popitem(last=False)
                self._num_characters -= size
            return matcher.deep_copy()


def _digest(kind: str, guide: str) -> bytes:
    """Return the key of a guide."""
    return hashlib.sha256(f"{kind}\0{guide}".encode("utf-8", "surrogatepass")).digest()
