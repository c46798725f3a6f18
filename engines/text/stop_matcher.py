"""Finds the first of several stop strings in a text that comes in pieces (Aho-Corasick).

A text costs time linear in its length, however many stop strings there are.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache


@dataclass(slots=True)
class Node:
    """A prefix of a stop string."""

    depth: int  # characters of the prefix
    children: dict[str, "Node"] = field(default_factory=dict)
    fallback: "Node | None" = None  # the longest end of this prefix that is a prefix too
    match: int = 0  # length of the longest stop string that ends here, 0 for none


class StopMatcher:
    """Where one text stands among the stop strings."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        """Start before the text's first character."""
        self._node = _compiled(stop)

    @property
    def num_pending(self) -> int:
        """Characters at the text's end that may begin a stop string: the longest such end."""
        return self._node.depth

    def push(self, piece: str) -> int | None:
        """Read a piece; return where the earliest stop string in it starts, None without one.

        The place counts from the piece's first character, so it is negative where earlier pieces
        hold the start. A stop string counts once its last character is read.
        """
        starts = []
        for position, character in enumerate(piece):
            self._node = _next(self._node, character)
            if self._node.match:
                starts.append(position + 1 - self._node.match)
        return min(starts, default=None)


def prepare_stops(stop: tuple[str, ...]) -> None:
    """Compile stop strings ahead of their first use, on the caller's thread."""
    _compiled(stop)


@lru_cache(maxsize=32)
def _compiled(stop: tuple[str, ...]) -> Node:
    """Return the empty prefix of the automaton of the stop strings; nothing changes it later."""
    root = Node(0)
    for string in stop:
        node = root
        for character in string:
            node = node.children.setdefault(character, Node(node.depth + 1))
        node.match = node.depth
    queue = deque([root])
    while queue:  # by depth, so that a fallback is finished before it is used
        node = queue.popleft()
        queue.extend(_link(node, root))
    return root


def _link(node: Node, root: Node) -> Iterable[Node]:
    """Set the fallbacks of a node's children, and return the children."""
    for character, child in node.children.items():
        child.fallback = root if node.fallback is None else _next(node.fallback, character)
        child.match = child.match or child.fallback.match
    return node.children.values()


def _next(node: Node, character: str) -> Node:
    """Return the longest prefix that the text ends with after `character`."""
    at: Node | None = node
    while at is not None:
        child = at.children.get(character)
        if child is not None:
            return child
        node, at = at, at.fallback
    return node  # the empty prefix
