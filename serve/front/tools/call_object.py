"""Reads one tool call, `{"name": ..., "arguments": ...}`, while it comes.

The keys stand in any order, and others may stand beside them. Of a key that comes twice the first
counts, because it may have gone out. Arguments that are a string are decoded: their text is the
arguments. Without arguments, with null or with an empty string, they are `{}`.
"""

from collections.abc import Callable

from nemotrt.serve.front.tools.json_reader import SPACE, Status, StringText, Value

NO_ARGUMENTS = "{}"


class CallObject:
    """One object; feed it from behind its opening brace."""

    rest, has_closed_block = "", False  # as an element may: it never reads beyond its end

    def __init__(self) -> None:
        """Start before the first key."""
        self.status = Status.OPEN
        self.name: str | None = None
        self.is_call = False  # from here on it can't be taken back
        self._pieces: list[str] = []  # of the arguments, not yet handed over
        self._has_arguments = False
        self._has_text = False
        self._key = ""
        self._text: list[str] = []  # of the key or the name under way
        self._value = Value()
        self._string: StringText | None = None
        self._read: Callable[[str, int], int] = self._key_start

    def push(self, text: str, start: int) -> int:
        """Read `text` from `start`; return where the object ends, or where the reading does."""
        position = start
        while position < len(text) and self.status is Status.OPEN:
            position = self._read(text, position)
        return position

    def take(self) -> str:
        """Return the arguments that can go out."""
        if not self.is_call:
            return ""
        piece, self._pieces = "".join(self._pieces), []
        self._has_text = self._has_text or bool(piece)
        return piece

    @property
    def is_cut(self) -> bool:
        """Whether the arguments of a call have begun, and not ended."""
        return self.is_call and self._read in (self._arguments, self._scalar)

    def flush(self) -> None:
        """Take the text as ended."""
        if self._string is not None and self._key == "arguments":
            self._pieces.append(self._string.flush())

    def _key_start(self, text: str, position: int) -> int:
        character = text[position]
        if character == '"':
            self._begin_string()
            self._read = self._key_text
            return position + 1
        if character == "}":
            return self._end(position)
        return self._skip(character, position, SPACE + ",")

    def _key_text(self, text: str, position: int) -> int:
        end = self._value.push(text, position)
        self._text.append(self._decoded(text[position:end]))
        if self._value.status is Status.COMPLETE:
            self._key, self._read = "".join(self._text), self._colon
        return end

    def _colon(self, text: str, position: int) -> int:
        if text[position] == ":":
            self._read = self._value_start
            return position + 1
        return self._skip(text[position], position, SPACE)

    def _value_start(self, text: str, position: int) -> int:
        character = text[position]
        if character in SPACE:
            return position + 1
        is_string = character == '"'
        self._value, self._string, self._read = Value(), None, self._other
        if self._key == "name" and self.name is None:
            if not is_string:
                self.status = Status.BROKEN
                return position
            self._read = self._name_text
        elif self._key == "arguments" and not self._has_arguments:
            self._has_arguments = True
            self._read = self._arguments if character in '"{[' else self._scalar
            self.is_call = bool(self.name) and self._read == self._arguments
        if is_string:
            self._begin_string()
        return position + is_string

    def _name_text(self, text: str, position: int) -> int:
        end = self._value.push(text, position)
        self._text.append(self._decoded(text[position:end]))
        if self._value.status is Status.COMPLETE:
            self.name, self._read = "".join(self._text), self._after
            self.is_call = bool(self.name) and bool(self._pieces)
            if not self.name:
                self.status = Status.BROKEN
        return end

    def _arguments(self, text: str, position: int) -> int:
        end = self._value.push(text, position)
        piece = text[position:end]
        self._pieces.append(piece if self._string is None else self._decoded(piece))
        return self._leave_value(end)

    def _scalar(self, text: str, position: int) -> int:
        """Collect arguments that are a number or a word; null says that there are none."""
        end = self._value.push(text, position)
        self._pieces.append(text[position:end])
        if self._value.status is Status.COMPLETE:
            scalar = "".join(self._pieces)
            self._pieces = [] if scalar == "null" else [scalar]
            self.is_call = bool(self.name)
        return self._leave_value(end)

    def _other(self, text: str, position: int) -> int:
        return self._leave_value(self._value.push(text, position))

    def _leave_value(self, end: int) -> int:
        if self._value.status is Status.COMPLETE:
            self._string, self._read = None, self._after
        elif self._value.status is Status.BROKEN:
            self.status = Status.BROKEN
        return end

    def _after(self, text: str, position: int) -> int:
        if text[position] == ",":
            self._read = self._key_start
            return position + 1
        if text[position] == "}":
            return self._end(position)
        return self._skip(text[position], position, SPACE)

    def _skip(self, character: str, position: int, allowed: str) -> int:
        if character not in allowed:
            self.status = Status.BROKEN
            return position
        return position + 1

    def _end(self, position: int) -> int:
        """Leave the object, which is a call if it has a name."""
        self.is_call = bool(self.name)
        self.status = Status.COMPLETE if self.is_call else Status.BROKEN
        if self.is_call and not (self._has_text or any(self._pieces)):
            self._pieces.append(NO_ARGUMENTS)
        return position + 1

    def _begin_string(self) -> None:
        """Start behind a string's opening quote."""
        self._value, self._string, self._text = Value(), StringText(), []
        self._value.push('"', 0)

    def _decoded(self, piece: str) -> str:
        """Decode a piece of the string under way, without its closing quote."""
        assert self._string is not None  # _begin_string()
        if self._value.status is Status.COMPLETE:
            return self._string.push(piece[:-1]) + self._string.flush()
        return self._string.push(piece)
