"""Which row of the state buffers each slot has, and how to bring a batch's rows together.

A step wants the rows of its sequences side by side, so that the state needs no gathering. Rows are
swapped only when a batch's rows have a gap, which happens once when a sequence ends or starts.
"""

from collections.abc import Sequence

from nemotrt.errors import ConfigError


class SlotTable:
    """A permutation of rows over slots."""

    def __init__(self, num_slots: int) -> None:
        """Start with every slot free, slot i in row i."""
        self.row_of = list(range(num_slots))
        self.slot_of = list(range(num_slots))
        self.is_used = [False] * num_slots

    def allocate(self) -> int:
        """Return the free slot that has the lowest row."""
        for slot in self.slot_of:
            if not self.is_used[slot]:
                self.is_used[slot] = True
                return slot
        raise ConfigError(f"all {len(self.is_used)} slots are in use.")

    def release(self, slot: int) -> None:
        """Free an allocated slot."""
        self.check(slot)
        self.is_used[slot] = False

    def check(self, slot: int) -> None:
        """Raise ConfigError unless `slot` is allocated."""
        if not 0 <= slot < len(self.is_used) or not self.is_used[slot]:
            raise ConfigError(f"slot {slot} is not allocated.")

    def gather(self, slots: Sequence[int]) -> tuple[int, list[tuple[int, int]]]:
        """Give `slots` adjoining rows; return the first row and the row swaps to carry out."""
        rows = sorted(self.row_of[slot] for slot in slots)
        if rows[-1] - rows[0] == len(rows) - 1:
            return rows[0], []
        swaps = []
        wanted = set(slots)
        holes = [row for row in range(len(rows)) if self.slot_of[row] not in wanted]
        outside = [row for row in rows if row >= len(rows)]
        for hole, row in zip(holes, outside, strict=True):
            self._swap(hole, row)
            swaps.append((hole, row))
        return 0, swaps

    def _swap(self, first: int, second: int) -> None:
        """Exchange the slots of two rows."""
        a, b = self.slot_of[first], self.slot_of[second]
        self.slot_of[first], self.slot_of[second] = b, a
        self.row_of[a], self.row_of[b] = second, first
