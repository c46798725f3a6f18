"""Tokens to text as they come: whole characters only, and no part of a stop string."""

from nemotrt.engines.tokenizer import Tokenizer


class TextStream:
    """The text of one request; holds back what might become a stop string."""

    def __init__(self, tokenizer: Tokenizer | None, stop: tuple[str, ...] = ()) -> None:
        """Start an empty text; without a tokenizer every text is empty."""
        self._decoder = tokenizer.decoder() if tokenizer else None
        self._stop = stop
        self._held = ""
        self.is_stopped = False

    def push(self, token: int) -> tuple[str, str]:
        """Add a token; return (what it decodes to, what may be shown now)."""
        if self._decoder is None:
            return "", ""
        piece = self._decoder(token)
        self._held += piece
        return piece, self._release()

    def flush(self) -> str:
        """Return what was held back, once no more tokens come."""
        rest, self._held = ("" if self.is_stopped else self._held), ""
        return rest

    def _release(self) -> str:
        """Cut the held text at a stop string, or keep the longest tail that may begin one."""
        found = [position for s in self._stop if (position := self._held.find(s)) >= 0]
        if found:
            self.is_stopped = True
            text, self._held = self._held[: min(found)], ""
            return text
        tail = max((_overlap(self._held, s) for s in self._stop), default=0)
        cut = len(self._held) - tail
        text, self._held = self._held[:cut], self._held[cut:]
        return text


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
