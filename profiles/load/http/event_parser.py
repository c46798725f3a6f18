"""Server-sent events out of the pieces of a body, as the HTML standard defines them."""

# Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream


class EventParser:
    """Collects pieces and gives back the data of each event that they complete."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._rest = b""
        self._data: list[bytes] = []

    @property
    def is_broken_off(self) -> bool:
        """Whether there is data that no blank line has ended."""
        return bool(self._rest or self._data)

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of the events that `piece` completes; other fields are ignored."""
        events: list[bytes] = []
        if b"\r" in piece or b"\r" in self._rest:
            # a lone CR at the end may be half of a CRLF: it waits for the next piece
            text = self._rest + piece
            held = b"\r" if text.endswith(b"\r") else b""
            text = text[: len(text) - len(held)]
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
            *lines, self._rest = text.split(b"\n")
        else:
            *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events
