"""Holds a text's end back while it may begin a mark: a stop string, or a tag (Aho-Corasick).

Whatever reads text that comes in pieces holds back by this. A text costs time linear in its length,
however it is cut and however many marks there are.
"""

import re
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

ANY_SPACE: Final = None  # as `str.rstrip` takes it


@dataclass(slots=True)
class Node:
    """A prefix of a mark: its first `depth` characters."""

    mark: str = ""
    depth: int = 0
    children: dict[str, "Node"] = field(default_factory=dict)
    fallback: "Node | None" = None  # the longest end of this prefix that is a prefix too
    match: int = 0  # length of the longest mark that ends here, 0 for none


class HoldBack:
    """A text on its way: what it says goes out once no mark can begin in it any more."""

    def __init__(self, marks: tuple[str, ...], space: str | None = "") -> None:
        """Start an empty text; characters of `space` that may stand before a mark wait with it."""
        self._root, self._beginning = _compiled(marks)
        self._node = self._root
        self._marks, self._space = marks, space
        self._spaces: list[str] = []  # that wait
        self.found = ""  # the mark that has ended last

    def __reduce__(self) -> tuple[Any, ...]:
        """Pass to another process without the automaton, which each compiles for itself."""
        begun = self._node.mark[: self._node.depth]
        return _restored, (self._marks, self._space, self._spaces, begun)

    @property
    def held(self) -> str:
        """The longest end of the text that may begin a mark, and the white space before it."""
        return "".join((*self._spaces, self._node.mark[: self._node.depth]))

    def push(self, text: str, start: int = 0, *, counts: bool = True) -> tuple[str, int | None]:
        """Add `text` from `start`; return (what may go out, where in `text` a mark ends, or None).

        Of the marks that the text completes, the one that begins first counts. The white space
        before it stays held, and what follows it has not been read. Unless it `counts`, a mark that
        the text completes is text as any other.
        """
        begun = self._node.mark[: self._node.depth]
        cut, end = self._read(text, start, counts=counts)
        settled = (begun + text[start:cut])[: len(begun) + cut - start]
        body = settled.rstrip(self._space)
        space = settled[len(body) :]
        if body and self._spaces:
            body, self._spaces = "".join((*self._spaces, body)), []
        if space:
            self._spaces.append(space)
        return body, end

    def flush(self) -> str:
        """Return what is held, and forget it."""
        held = self.held
        self._spaces, self._node = [], self._root
        return held

    def _read(self, text: str, start: int, *, counts: bool) -> tuple[int, int | None]:
        """Return where what may be a mark begins, and where a mark ends, both in `text`.

        The beginning is negative where earlier pieces hold it.
        """
        node, position = self._node, start
        begin, end = len(text), None
        while position < len(text) and position - node.depth < begin:  # one may yet begin before
            if not node.depth:
                candidate = self._beginning.search(text, position)
                if candidate is None:
                    break
                position = candidate.start()
            node = _next(node, text[position])
            position += 1
            if counts and node.match and position - node.match < begin:
                begin, end = position - node.match, position
                self.found = node.mark[node.depth - node.match : node.depth]
        self._node = node if end is None else self._root
        return (len(text) - node.depth if end is None else begin), end


def _restored(marks: tuple[str, ...], space: str | None, spaces: list[str], begun: str) -> HoldBack:
    """Return a text that has got as far as it had in another process."""
    hold = HoldBack(marks, space)
    hold.push(begun, counts=False)
    hold._spaces = spaces
    return hold


@lru_cache(maxsize=32)
def _compiled(marks: tuple[str, ...]) -> tuple[Node, re.Pattern[str]]:
    """Return the empty prefix of the marks' automaton, and what finds a first character.

    Nothing changes them later.
    """
    root = Node()
    for mark in marks:
        node = root
        for depth, character in enumerate(mark, 1):
            node = node.children.setdefault(character, Node(mark, depth))
        node.match = node.depth
    queue = deque([root])
    while queue:  # by depth, so that a fallback is finished before it is used
        node = queue.popleft()
        for character, child in node.children.items():
            child.fallback = root if node.fallback is None else _next(node.fallback, character)
            child.match = child.match or child.fallback.match
            queue.append(child)
    return root, re.compile("|".join(map(re.escape, root.children)) or "(?!)")


def _next(node: Node, character: str) -> Node:
    """Return the longest prefix that the text ends with after `character`."""
    while (child := node.children.get(character)) is None and node.fallback is not None:
        node = node.fallback
    return child or node  # the empty prefix
