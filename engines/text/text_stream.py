"""Tokens to text as they come: whole characters only, and no part of a stop string."""

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.text.hold_back import HoldBack
from nemotrt.engines.text.reasoning import Split, Trace, TraceReader
from nemotrt.engines.text.tokenizer import Tokenizer


class TextStream:
    """The text of one request; holds back what might become a stop string.

    Stop strings count in the answer alone: neither in a reasoning trace nor in its tags and the
    newlines beside them.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        stop: tuple[str, ...] = (),
        trace: Trace = Trace.CLOSED,
        *,
        show_stop: bool = False,
        skip_special_tokens: bool = True,
    ) -> None:
        """Start an empty text where the prompt leaves the trace; CLOSED: all is the answer.

        With `show_stop` the stop string that ends the text belongs to it. Without a tokenizer every
        text is empty.
        """
        self._decoder = None
        if tokenizer is not None:
            self._decoder = tokenizer.decoder(skip_special_tokens=skip_special_tokens)
        self._stops, self._show_stop = stop, show_stop
        self._hold = HoldBack(stop)
        chat = tokenizer.chat if tokenizer else DEFAULT
        self._reader = TraceReader(chat, trace if stop else Trace.CLOSED)
        self._may_stop = True
        self.is_stopped = False

    def push(self, token: int, *, may_stop: bool = True) -> tuple[str, str]:
        """Add a token; return (what it decodes to, what may be shown now).

        Without `may_stop` a stop string that the token completes is text as any other.
        """
        if self._decoder is None:
            return "", ""
        piece = self._decoder(token)
        if not self._stops:
            return piece, piece  # nothing is ever held back
        self._may_stop = may_stop
        split = self._reader.push(piece)
        if self._stops_before_the_trace():
            split = self._reader.flush()
        return piece, self._show(split)

    def flush(self) -> str:
        """Return what was held back, once no more tokens come; it may hold a stop string yet."""
        return self._show(self._reader.flush()) + self._hold.flush()

    def _stops_before_the_trace(self) -> bool:
        """Whether white space that may come before a trace has a stop string: no need to wait."""
        space = self._reader.held
        if not (self._may_stop and self._reader.trace is Trace.BEFORE and space.isspace()):
            return False
        return HoldBack(self._stops).push(space)[1] is not None

    def _show(self, split: Split) -> str:
        """Return what may be shown; the rest is held, or dropped at a stop string."""
        if self.is_stopped:
            return ""
        held = self._hold.held
        text, end = self._hold.push(split.content, counts=self._may_stop)
        self.is_stopped = end is not None
        if end is not None and self._show_stop:
            text = held + split.content[:end]
        return split.outside + text
