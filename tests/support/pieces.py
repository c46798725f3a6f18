"""A model that says given pieces of text, and the tokenizer of which they are the tokens."""

from collections.abc import Callable, Sequence

import numpy as np

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.text.tokenizer import Tokenizer
from support.stand_in import StandInEngine


class PieceTokenizer(Tokenizer):
    """Token i is piece i; a text is encoded by the longest pieces."""

    chat = DEFAULT

    def __init__(self, pieces: Sequence[str], eos_ids: Sequence[int] = ()) -> None:
        self.pieces = list(pieces)
        self.eos_ids = tuple(eos_ids)

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def token_id(self, text: str) -> int | None:
        return self.pieces.index(text) if text in self.pieces else None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        ids = []
        while text:
            best = max((p for p in self.pieces if p and text.startswith(p)), key=len)
            ids.append(self.pieces.index(best))
            text = text[len(best) :]
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return "".join(self.pieces[i] for i in ids)

    def decoder(self, **how: bool) -> Callable[[int], str]:
        return lambda token: self.pieces[token]


class SaysPieces(StandInEngine):
    """An engine of one slot whose likeliest tokens are `ids` in turn, whatever it is fed."""

    def __init__(self, ids: Sequence[int], vocab_size: int, *, max_seq_len: int = 4096) -> None:
        super().__init__(Limits(1, max_seq_len, chunk_tokens=64), vocab_size)
        self._ids = list(ids)
        self._num_said = 0

    def step(self, feeds: Sequence[Feed]) -> np.ndarray:
        logits = np.zeros((1, self.vocab_size), np.float32)
        if self._num_said < len(self._ids):
            logits[0, self._ids[self._num_said]] = 5.0
        self._num_said += 1
        return logits
