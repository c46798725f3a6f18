"""The kept states of all salts, within a limit of bytes.

Room is made by dropping states, those first that have many bytes and were not used for long.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nemotrt.engines.runtime.kept_state import (
    CachedTokens,
    FixedState,
    KeptStats,
    SavedState,
    StateBytes,
    first_tokens,
)
from nemotrt.engines.runtime.request import PromptToken
from nemotrt.engines.runtime.state.kept.prefix_tree import (
    Ids,
    KeptScores,
    Match,
    Node,
    add,
    match,
    node_at,
    nodes,
    prune,
    root,
)
from nemotrt.errors import EnvironmentUnfitError

ID_BYTES = 4  # of a token's id, which the tree holds beside its caches
SLACK = 64  # a pass over all states frees at least this part of the limit


NO_ARRAYS = FixedState(())


@dataclass(frozen=True, slots=True)
class Found:
    """The longest kept state of a text; `matched` of its tokens are known, with a state or not."""

    num_tokens: int = 0
    fixed: FixedState = NO_ARRAYS
    caches: tuple[CachedTokens, ...] = ()
    scores: tuple[PromptToken, ...] = ()
    matched: int = 0


class PrefixCache:
    """States by the tokens that they are of; not thread-safe.

    Args:
        limit_bytes: most bytes of all states.
        sizes: what a state of the engine costs.
        is_halved: float32 states are kept in float16; what comes back is not exact then.
    """

    def __init__(self, limit_bytes: int, sizes: StateBytes, *, is_halved: bool = False) -> None:
        """Start empty."""
        self.stats = KeptStats(limit_bytes)
        self._sizes = sizes
        self._is_halved = is_halved
        self._roots: dict[str, Node] = {}
        self._clock = 0
        self._reserved = 0

    def find(self, salt: str, ids: Ids, num_top: int | None = None) -> Found:
        """Return the longest state of a proper prefix of a text, of 0 tokens if there is none.

        With `num_top` it must have the scores of the prefix, with so many likeliest tokens.
        """
        found = match(self._roots.get(salt) or root(), ids)
        path, size = self._usable(found, ids, num_top)
        if not path:
            return Found(matched=found.num_tokens)
        last = path[-1]
        self._touch(last)
        caches = first_tokens(tuple(piece for node in path for piece in node.caches), size)
        fixed = last.fixed if last.fixed is not None and last.depth == size else NO_ARRAYS
        scores = last.scores.tokens if last.scores is not None and num_top is not None else ()
        return Found(size, fixed, caches, scores, found.num_tokens)

    def num_known(self, salt: str, ids: Ids, num_top: int | None = None) -> int:
        """Return how many tokens `find` would find; nothing counts as used, nothing is copied."""
        return self._usable(match(self._roots.get(salt) or root(), ids), ids, num_top)[1]

    def _usable(self, found: Match, ids: Ids, num_top: int | None) -> tuple[list[Node], int]:
        """Return the path to the longest usable state, and the state's tokens; none is ([], 0)."""
        most, path = len(ids) - 1, found.node.path()
        if num_top is None and not self._sizes.per_sequence:  # any token may be a boundary
            return self._spared(found, ids), min(found.num_tokens, most)
        for length in range(len(path), 0, -1):
            node = path[length - 1]
            is_scored = num_top is None or (
                node.scores is not None and node.scores.serves(ids, num_top)
            )
            if node.fixed is not None and node.depth <= most and is_scored:
                return path[:length], node.depth
        return [], 0

    def keep(
        self,
        salt: str,
        ids: Ids,
        save: Callable[[int], SavedState],
        scores: KeptScores | None = None,
    ) -> bool:
        """Keep the state after a text; return whether it is kept.

        Args:
            salt: whose it is.
            ids: the text, of one token at least.
            save: returns the state, and of the caches those from the given token on.
            scores: of the text's tokens and the next one.
        """
        found = match(self._roots.get(salt) or root(), ids)
        is_node = found.num_tokens == len(ids) and not found.beyond
        if not is_node or found.node.fixed is None:
            spared = self._spared(found, ids)
            needed = self._bytes(len(ids) - found.num_tokens) + self._sizes.per_sequence
            if self._is_halved:
                needed += self._sizes.per_sequence // 2  # while both are there
            if not self._make_room(needed, spared):
                return False
            try:
                saved = save(found.num_tokens)
            except EnvironmentUnfitError:
                for shared in spared[-1:]:
                    self._prune(shared)  # its state may have gone for this one's room
                raise
            found = self._take(salt, ids, found, saved)
        if scores is not None:
            found.node.scores = scores
        self._touch(found.node)
        return True

    def _spared(self, found: Match, ids: Ids) -> list[Node]:
        """Return the nodes whose caches a new state shares."""
        spared = found.node.path()
        return (
            [*spared, found.node.children[int(ids[found.node.depth])]] if found.beyond else spared
        )

    def _take(self, salt: str, ids: Ids, found: Match, saved: SavedState) -> Match:
        """Put a state into the tree; return where it is."""
        if found.node.is_root:
            tree = self._roots.setdefault(salt, root())
            found = Match(tree, found.beyond)
        below = self._spared(found, ids)[-1:] if found.beyond else []
        node = node_at(found, int(ids[min(found.node.depth, len(ids) - 1)]))
        if node.depth < len(ids):
            self.stats.bytes += self._bytes(len(ids) - node.depth)
            node = add(node, ids[node.depth :], saved.caches)
        node.fixed = saved.fixed.halved() if self._is_halved else saved.fixed
        self.stats.bytes += node.fixed.num_bytes
        self.stats.states += 1
        self.stats.saves += 1
        for shared in below:
            self._prune(shared)  # its state may have gone for this one's room
        return Match(node, 0)

    def can_hold(self, num_tokens: int) -> bool:
        """Whether a state of so many tokens can be kept at all."""
        needed = self._bytes(num_tokens) + self._sizes.per_sequence
        return needed + self._reserved <= self.stats.limit_bytes

    def forget(self, salt: str, ids: Ids) -> None:
        """Drop every state of a text's prefixes: what came of them was wrong."""
        tree = self._roots.get(salt)
        if tree is not None:
            for node in reversed(match(tree, ids).node.path()):
                if node.fixed is not None:
                    self._drop(node, ())

    def reserve(self, num_bytes: int) -> bool:
        """Take bytes of the limit for a state that is held elsewhere; False if there are none."""
        if not self._make_room(num_bytes, ()):
            return False
        self._reserved += num_bytes
        self.stats.bytes += num_bytes
        return True

    def shrink(self) -> None:
        """Take what is held now as the limit: the host has no memory for more."""
        self.stats.limit_bytes = self.stats.bytes

    def free(self, num_bytes: int) -> None:
        """Give back bytes that were reserved."""
        self._reserved -= num_bytes
        self.stats.bytes -= num_bytes

    def _bytes(self, num_tokens: int) -> int:
        return num_tokens * (self._sizes.per_token + ID_BYTES)

    def _touch(self, node: Node) -> None:
        self._clock += 1
        node.used = self._clock

    def _make_room(self, needed: int, spared: Sequence[Node]) -> bool:
        """Drop states until so many bytes are free; `spared` nodes keep their caches.

        Returns False, and drops nothing, if that can't be.
        """
        limit = self.stats.limit_bytes
        kept = self._bytes(sum(len(node.ids) for node in spared))
        if needed + kept + self._reserved > limit:
            return False
        most = limit - needed
        if self.stats.bytes > most:
            self._evict(min(most, limit - limit // SLACK), spared)
        return self.stats.bytes <= most

    def _evict(self, most: int, spared: Sequence[Node]) -> None:
        """Drop states until no more than `most` bytes are held."""
        held = [node for tree in self._roots.values() for node in nodes(tree) if node.fixed]
        held.sort(key=self._waste, reverse=True)
        for node in held:
            if self.stats.bytes <= most:
                break
            self._drop(node, spared)
            self.stats.evictions += 1
        self._roots = {salt: tree for salt, tree in self._roots.items() if tree.children}

    def _waste(self, node: Node) -> int:
        """Return the bytes that dropping a state frees, times how long it was not used."""
        assert node.fixed is not None
        freed = node.fixed.num_bytes + (0 if node.children else self._bytes(len(node.ids)))
        return freed * (self._clock - node.used + 1)

    def _drop(self, node: Node, spared: Sequence[Node]) -> None:
        """Drop a node's state, and the caches that served it alone."""
        assert node.fixed is not None
        self.stats.bytes -= node.fixed.num_bytes
        self.stats.states -= 1
        node.fixed = node.scores = None
        self._prune(node, spared)

    def _prune(self, node: Node, spared: Sequence[Node] = ()) -> None:
        self.stats.bytes -= self._bytes(prune(node, spared))
