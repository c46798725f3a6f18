"""What an engine is fed: sequences of fixed tokens that come and go, and what it answers."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nemotrt.engines.runtime.engine import Engine, Feed, HasLimits, Limits

MAX_SEQUENCES = 4  # at once
MAX_PROMPT = 600
NUM_DECODED = 6
SHORT_PROMPTS = (1, 7, 13, 3)  # after the first, which is longer than a chunk

Floats = npt.NDArray[np.float32]
Place = tuple[int, int]  # a sequence, and the tokens that it has then


@dataclass(frozen=True, slots=True)
class Sequence:
    """Tokens that are fed: a prompt in chunks, then one by one."""

    tokens: tuple[int, ...]
    num_prompt: int

    def pieces(self, chunk_tokens: int) -> Iterator[tuple[int, ...]]:
        """Yield what is fed at once."""
        for start in range(0, self.num_prompt, chunk_tokens):
            yield self.tokens[start : min(start + chunk_tokens, self.num_prompt)]
        for token in self.tokens[self.num_prompt :]:
            yield (token,)


def sequences(engine: HasLimits) -> list[Sequence]:
    """Return one more sequence than are there at once, so that a slot has a second owner."""
    limits, random = engine.limits, np.random.default_rng(0)
    decoded = min(NUM_DECODED, limits.max_seq_len - 1)
    room = limits.max_seq_len - decoded
    first = min(limits.chunk_tokens + limits.chunk_tokens // 2 + 1, MAX_PROMPT)
    count = num_at_once(limits) + 1
    prompts = (first, *(SHORT_PROMPTS * count)[: count - 1])
    found = []
    for prompt in prompts:
        num_prompt = max(1, min(prompt, room))
        tokens = random.integers(0, engine.vocab_size, num_prompt + decoded).tolist()
        found.append(Sequence(tuple(tokens), num_prompt))
    return found


def num_at_once(limits: Limits) -> int:
    """Return how many sequences hold state at once."""
    return min(MAX_SEQUENCES, limits.max_batch_size)


def run(engine: Engine, wanted: list[Sequence]) -> dict[Place, Floats]:
    """Return the logits after every piece; a sequence is admitted a step, if there is room."""
    waiting = deque(enumerate(wanted))
    live: dict[int, tuple[int, Iterator[tuple[int, ...]]]] = {}  # sequence: slot, pieces left
    fed = dict.fromkeys(range(len(wanted)), 0)
    found = {}
    while waiting or live:
        if waiting and len(live) < num_at_once(engine.limits):
            number, sequence = waiting.popleft()
            live[number] = engine.allocate(), sequence.pieces(engine.limits.chunk_tokens)
        feeds = {number: Feed(slot, next(pieces)) for number, (slot, pieces) in live.items()}
        rows = engine.step(list(feeds.values()))
        for (number, feed), row in zip(feeds.items(), rows, strict=True):
            fed[number] += len(feed.tokens)
            found[number, fed[number]] = np.array(row, np.float32)
            if fed[number] == len(wanted[number].tokens):
                engine.release(live.pop(number)[0])
    return found
