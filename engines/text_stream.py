"""Tokens to text as they come: whole characters only, and no part of a stop string."""

from nemotrt.engines.stop_matcher import StopMatcher
from nemotrt.engines.tokenizer import Tokenizer


class TextStream:
    """The text of one request; holds back what might become a stop string."""

    def __init__(self, tokenizer: Tokenizer | None, stop: tuple[str, ...] = ()) -> None:
        """Start an empty text; without a tokenizer every text is empty."""
        self._decoder = tokenizer.decoder() if tokenizer else None
        self._stop = StopMatcher(stop)
        self._held = ""
        self.is_stopped = False

    def push(self, token: int) -> tuple[str, str]:
        """Add a token; return (what it decodes to, what may be shown now)."""
        if self._decoder is None:
            return "", ""
        piece = self._decoder(token)
        start = self._stop.push(piece)
        num_before = len(self._held)
        self._held += piece
        if start is not None:
            self.is_stopped = True
            text, self._held = self._held[: num_before + start], ""
            return piece, text
        cut = len(self._held) - self._stop.num_pending
        text, self._held = self._held[:cut], self._held[cut:]
        return piece, text

    def flush(self) -> str:
        """Return what was held back, once no more tokens come."""
        rest, self._held = ("" if self.is_stopped else self._held), ""
        return rest
