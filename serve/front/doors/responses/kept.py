"""Responses that later requests go on from, in memory: each API key's own, within a limit."""

from collections import OrderedDict
from dataclasses import dataclass

MAX_RESPONSES = 4096  # of all keys


@dataclass(frozen=True, slots=True)
class Kept:
    """A response and its conversation, items and answer included; both as JSON."""

    response: bytes
    items: bytes

    @property
    def num_bytes(self) -> int:
        """What it holds."""
        return len(self.response) + len(self.items)


class KeptResponses:
    """The responses by whose they are and by id.

    Beyond a limit the oldest goes, of whoever holds the most: one who asks much takes nothing from
    the others.
    """

    def __init__(self, max_bytes: int, max_responses: int = MAX_RESPONSES) -> None:
        """Keep none yet."""
        self.max_bytes, self.max_responses = max_bytes, max_responses
        self._kept: dict[bytes, OrderedDict[str, Kept]] = {}
        self._num_bytes: dict[bytes, int] = {}

    def get(self, owner: bytes, name: str) -> Kept | None:
        """Return a response of one's own; it is the newest from then on."""
        own = self._kept.get(owner, OrderedDict())
        if name not in own:
            return None
        own.move_to_end(name)
        return own[name]

    def put(self, owner: bytes, name: str, kept: Kept) -> None:
        """Keep a response; one that is larger than the limit is not kept."""
        if kept.num_bytes > self.max_bytes:
            return
        self._kept.setdefault(owner, OrderedDict())[name] = kept
        self._num_bytes[owner] = self._num_bytes.get(owner, 0) + kept.num_bytes
        while self._is_too_much():
            largest = max(self._num_bytes, key=self._num_bytes.__getitem__)
            self.drop(largest, next(iter(self._kept[largest])))

    def drop(self, owner: bytes, name: str) -> bool:
        """Forget a response; return whether there was one."""
        kept = self._kept.get(owner, OrderedDict()).pop(name, None)
        if kept is None:
            return False
        self._num_bytes[owner] -= kept.num_bytes
        if not self._kept[owner]:
            del self._kept[owner], self._num_bytes[owner]
        return True

    def _is_too_much(self) -> bool:
        count = sum(map(len, self._kept.values()))
        return count > self.max_responses or sum(self._num_bytes.values()) > self.max_bytes
