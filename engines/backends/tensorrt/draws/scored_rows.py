"""Rows of logits that leave the device because log-probabilities of their tokens are asked for."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.runtime.sampling.draws import Draws, Turn
from nemotrt.engines.runtime.sampling.params import Score


class ScoredRows:
    """Page-locked rows for one step, and what scores them.

    There is one for each slot from the start, though few requests want any: one that does must not
    fail in its middle because this memory can't be had.
    """

    def __init__(self, cuda: Cuda, vocab_size: int, num_slots: int, scorer: Draws) -> None:
        """Allocate the rows."""
        self._cuda, self._scorer = cuda, scorer
        self._rows = cuda.host_array((num_slots, vocab_size), np.float32)
        self._turns: list[int] = []  # which of a step's turns each row is of

    def fetch(self, logits_address: int, turns: Sequence[Turn]) -> None:
        """Enqueue the rows' copies; those that want as many likeliest tokens adjoin."""
        wanted = [i for i, turn in enumerate(turns) if turn.draw.num_top is not None]
        self._turns = sorted(wanted, key=lambda i: turns[i].draw.num_top)
        for row, index in enumerate(self._turns):
            source = logits_address + self._rows.strides[0] * turns[index].row
            self._cuda.to_host(self._rows[row], source)

    def scores(self, turns: Sequence[Turn], tokens: Sequence[int]) -> dict[int, Score | None]:
        """Return turn -> what its row says of its token, for those that were fetched."""
        found: dict[int, Score | None] = {}
        for num_top, group in groupby(self._turns, key=lambda i: turns[i].draw.num_top):
            indices = list(group)
            rows = self._rows[len(found) : len(found) + len(indices)]
            scores = self._scorer.score(rows, [tokens[i] for i in indices], num_top)
            found.update(zip(indices, scores, strict=True))
        return found
