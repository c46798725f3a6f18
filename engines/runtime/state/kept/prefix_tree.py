"""A tree of texts: an edge has token ids and their caches, a node may have the state behind them.

What two texts share stands once. A node without a state is where texts part, or serves those below
it; one that serves nobody goes, with its caches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nemotrt.engines.runtime.kept_state import (
    CachedTokens,
    FixedState,
    first_tokens,
    last_tokens,
)
from nemotrt.engines.runtime.request import PromptToken

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class KeptScores:
    """What a text's own tokens scored, the one behind the state included."""

    num_top: int
    tokens: tuple[PromptToken, ...]

    def serves(self, ids: Ids, num_top: int) -> bool:
        """Whether a text that goes on from the state has these scores."""
        last = len(self.tokens) - 1
        return num_top == self.num_top and last < len(ids) and self.tokens[last].id == ids[last]


@dataclass(slots=True, eq=False)
class Node:
    """The end of an edge; `depth` tokens lie before it."""

    ids: Ids  # of the edge
    caches: tuple[CachedTokens, ...]  # of the edge
    depth: int
    parent: "Node | None"
    children: dict[int, "Node"] = field(default_factory=dict)  # by their first token
    fixed: FixedState | None = None
    scores: KeptScores | None = (
        None  # what the texts' own tokens scored up to here and at the next one
    )
    used: int = 0  # when last, by the cache's clock

    @property
    def is_root(self) -> bool:
        """Whether no token lies before it."""
        return self.parent is None

    def path(self) -> list["Node"]:
        """The nodes from below the root to this one."""
        nodes: list[Node] = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


@dataclass(frozen=True, slots=True)
class Match:
    """How far a text goes along the tree: past `node`, and `beyond` tokens into an edge below."""

    node: Node
    beyond: int

    @property
    def num_tokens(self) -> int:
        """Tokens of the text that stand in the tree."""
        return self.node.depth + self.beyond


def root() -> Node:
    """Return a tree without a text."""
    return Node(np.empty(0, np.int32), (), 0, None)


def match(tree: Node, ids: Ids) -> Match:
    """Return how far a text goes along a tree."""
    node = tree
    while node.depth < len(ids):
        child = node.children.get(int(ids[node.depth]))
        if child is None:
            break
        common = num_common(child.ids, ids[node.depth :])
        if common < len(child.ids):
            return Match(node, common)
        node = child
    return Match(node, 0)


def num_common(first: Ids, second: Ids) -> int:
    """Return how many ids two texts have in common from their beginning."""
    size = min(len(first), len(second))
    differ = first[:size] != second[:size]
    at = int(differ.argmax()) if size else 0
    return at if size and differ[at] else size


def node_at(found: Match, next_id: int) -> Node:
    """Return the node where a match ends; an edge is cut there if need be.

    `next_id` is the text's token behind `found.node`, which says into which edge the match goes.
    """
    if not found.beyond:
        return found.node
    below = found.node.children[next_id]
    size = found.beyond
    middle = Node(
        below.ids[:size].copy(),
        first_tokens(below.caches, size),
        found.num_tokens,
        found.node,
        {int(below.ids[size]): below},
        used=below.used,
    )
    found.node.children[next_id] = middle
    below.ids, below.parent = below.ids[size:].copy(), middle
    below.caches = last_tokens(below.caches, size)
    return middle


def add(parent: Node, ids: Ids, caches: tuple[CachedTokens, ...]) -> Node:
    """Return a new node below another, at the end of an edge of these tokens."""
    node = Node(ids.copy(), caches, parent.depth + len(ids), parent)
    parent.children[int(ids[0])] = node
    return node


def prune(node: Node, spared: Sequence[Node] = ()) -> int:
    """Drop a node and those above it that serve nobody; return the tokens whose caches went."""
    num_tokens = 0
    while node.parent is not None and not node.children and node.fixed is None:
        if node in spared:
            break
        parent = node.parent
        del parent.children[int(node.ids[0])]
        num_tokens += len(node.ids)
        node = parent
    return num_tokens


def nodes(tree: Node) -> Iterator[Node]:
    """Yield every node but the root."""
    stack = list(tree.children.values())
    while stack:
        node = stack.pop()
        yield node
        stack.extend(node.children.values())
