"""Who owns which slot, what each holds and in which row it lies: once, for every engine.

An engine asks here before a step changes anything, and says here what it has fed. Rows of state are
zeroed and moved from here alone, between the steps that use them.
"""

from collections.abc import Sequence
from typing import Protocol

from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.state.slot_table import SlotTable
from nemotrt.errors import ConfigError


class States(Protocol):
    """The state of all sequences, one row each; a row holds at most `tokens` tokens' state."""

    def clear(self, row: int, tokens: int) -> None:
        """Make a row zero."""

    def swap(self, first: int, second: int, tokens: int) -> None:
        """Exchange two rows."""


class Slots:
    """The slots of one engine, which is one of these with `step` and `close`.

    `held` has the tokens that each slot's state holds. `max_draft` is how many tokens a draft may
    have, for engines that take drafts.
    """

    max_draft = 0

    def __init__(self, limits: Limits, vocab_size: int, states: States) -> None:
        """Start with every slot free and empty."""
        self.limits = limits
        self.vocab_size = vocab_size
        self.held = [0] * limits.max_batch_size
        self._table = SlotTable(limits.max_batch_size)
        self._rows = states

    def allocate(self) -> int:
        """Return a free slot; its state is zero."""
        return self._table.allocate()

    def release(self, slot: int) -> None:
        """Free a slot; its state becomes zero."""
        self._table.release(slot)
        self._rows.clear(self._table.row_of[slot], self.held[slot])
        self.held[slot] = 0

    def held_tokens(self, slot: int) -> int:
        """Return how many tokens the state of an allocated slot holds."""
        self._table.check(slot)
        return self.held[slot]

    def check(self, feeds: Sequence[Feed]) -> None:
        """Raise ConfigError unless the engine can take `feeds` in one step."""
        limits = self.limits
        slots = [feed.slot for feed in feeds]
        if len(set(slots)) != len(slots):
            raise ConfigError("a slot is fed twice in one step.")
        for feed in feeds:
            held = self.held_tokens(feed.slot)
            count = len(feed.tokens)
            if not 1 <= count <= limits.chunk_tokens:
                raise ConfigError(
                    f"slot {feed.slot} is fed {count} tokens; "
                    f"a step takes 1 to {limits.chunk_tokens}."
                )
            if not 1 <= feed.num_logits <= count:
                raise ConfigError(
                    f"slot {feed.slot}: num_logits must be 1 to {count}, got {feed.num_logits}."
                )
            if feed.is_draft and count > self.max_draft:
                raise ConfigError(
                    f"slot {feed.slot} is fed a draft of {count} tokens; "
                    f"the engine takes at most {self.max_draft}."
                )
            if held + count > limits.max_seq_len:
                raise ConfigError(
                    f"slot {feed.slot} would hold {held + count} tokens; "
                    f"the engine was built for {limits.max_seq_len}."
                )
            if not (min(feed.tokens) >= 0 and max(feed.tokens) < self.vocab_size):
                raise ConfigError(
                    f"slot {feed.slot}: token ids must be 0 to {self.vocab_size - 1}."
                )

    def gather(self, feeds: Sequence[Feed]) -> tuple[int, list[Feed]]:
        """Bring the rows of the feeds together; return the first one, and the feeds row by row."""
        table = self._table
        first, swaps = table.gather([feed.slot for feed in feeds])
        for a, b in swaps:
            tokens = max(self.held[table.slot_of[a]], self.held[table.slot_of[b]])
            self._rows.swap(a, b, tokens)
        return first, sorted(feeds, key=lambda feed: table.row_of[feed.slot])

    def row_of(self, feed: Feed) -> int:
        """Return where the state of a feed's slot lies."""
        return self._table.row_of[feed.slot]

    def advance(self, feeds: Sequence[Feed]) -> None:
        """Note that a step has fed these tokens."""
        for feed in feeds:
            self.held[feed.slot] += len(feed.tokens)
