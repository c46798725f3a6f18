"""Parses `<TOOLCALL>[{"name": ..., "arguments": ...}, ...]</TOOLCALL>` while it comes.

A call's name goes out as soon as it is known, its arguments as they come. What turns out not to be
a call is handed back as content: nothing is ever lost.
"""

import json
import re
import secrets
from dataclasses import dataclass

OPEN = "<TOOLCALL>"
CLOSE = "</TOOLCALL>"
HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*')
GAP = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True)
class CallDelta:
    """What a piece of text added to a tool call; the first of a call has its name and id."""

    index: int
    arguments: str = ""
    name: str | None = None
    call_id: str | None = None


@dataclass(slots=True)
class ValueScanner:
    """Finds where a JSON value ends."""

    depth: int = 0
    in_string: bool = False
    is_escaped: bool = False

    def end(self, text: str) -> int | None:
        """Return how much of `text` belongs to the value, None if it may go on."""
        for position, character in enumerate(text):
            if self.in_string:
                self._string(character)
                if self.in_string or self.depth:
                    continue
                return position + 1
            if character == '"':
                self.in_string = True
            elif character in "{[":
                self.depth += 1
            elif character in "}]":
                self.depth -= 1
                if self.depth <= 0:
                    return position + 1 if self.depth == 0 else position
            elif character == "," and not self.depth:
                return position
        return None

    def _string(self, character: str) -> None:
        if self.is_escaped:
            self.is_escaped = False
        elif character == "\\":
            self.is_escaped = True
        elif character == '"':
            self.in_string = False


class ToolCallParser:
    """Separates content from tool calls; feed it the answer without its reasoning."""

    def __init__(self) -> None:
        """Start outside of a list of calls."""
        self.num_calls = 0
        self._state = self._outside
        self._held = ""
        self._raw = ""  # of the call under way, in case it turns out not to be one
        self._scanner = ValueScanner()
        self._string = ""  # arguments that come as a JSON string are decoded when whole
        self._content: list[str] = []
        self._deltas: list[CallDelta] = []

    def push(self, text: str) -> tuple[str, list[CallDelta]]:
        """Add a piece; return the content and the tool-call parts that it completed."""
        self._held += text
        while self._state():
            pass
        return self._collect()

    def flush(self) -> tuple[str, list[CallDelta]]:
        """Return what is held, once no more text comes; a broken call comes as it is."""
        if self._string:
            self._deltas.append(CallDelta(self.num_calls, self._string))
            self.num_calls += 1
        self._content.append(self._raw + self._held)
        self._raw = self._held = self._string = ""
        return self._collect()

    def _collect(self) -> tuple[str, list[CallDelta]]:
        content, deltas = "".join(self._content), self._deltas
        self._content, self._deltas = [], []
        return content, deltas

    def _outside(self) -> bool:
        """Pass content on up to a list of calls."""
        start = self._held.find(OPEN)
        if start >= 0:
            self._content.append(self._held[:start].rstrip())
            self._held = self._held[start + len(OPEN) :]
            self._raw = OPEN
            self._state = self._list_start
            return True
        keep = next((n for n in range(len(OPEN) - 1, 0, -1) if self._held.endswith(OPEN[:n])), 0)
        cut = len(self._held) - keep
        cut = len(self._held[:cut].rstrip()) if keep else cut
        self._content.append(self._held[:cut])
        self._held = self._held[cut:]
        return False

    def _list_start(self) -> bool:
        """Enter the list."""
        text = self._held.lstrip()
        if not text:
            return False
        if text[0] != "[":
            return self._give_up()
        self._consume(len(self._held) - len(text) + 1)
        self._state = self._between
        return True

    def _between(self) -> bool:
        """Find the next call or the list's end."""
        match = GAP.match(self._held)
        text = self._held[match.end() :] if match else self._held
        if not text:
            return False
        if text[0] == "]":
            self._consume(len(self._held) - len(text) + 1)
            self._state = self._list_end
            return True
        head = HEAD.match(text)
        if head is None:
            return self._give_up() if not _may_become_head(text) else False
        if head.end() == len(text):
            return False  # the first character of the arguments decides how they are read
        name = json.loads(head.group(1))
        self._consume(len(self._held) - len(text) + head.end())
        call_id = f"call_{secrets.token_hex(12)}"
        self._deltas.append(CallDelta(self.num_calls, name=name, call_id=call_id))
        self._scanner = ValueScanner()
        self._string = ""
        self._state = self._string_arguments if self._held[0] == '"' else self._arguments
        self._raw = ""
        return True

    def _arguments(self) -> bool:
        """Pass arguments on as they come."""
        end = self._scanner.end(self._held)
        piece = self._held if end is None else self._held[:end]
        self._held = self._held[len(piece) :]
        if piece:
            self._deltas.append(CallDelta(self.num_calls, piece))
        if end is None:
            return False
        self.num_calls += 1
        self._state = self._call_end
        return True

    def _string_arguments(self) -> bool:
        """Collect arguments that are a JSON text within a string."""
        end = self._scanner.end(self._held)
        self._string += self._held if end is None else self._held[:end]
        self._held = "" if end is None else self._held[end:]
        if end is None:
            return False
        try:
            decoded = json.loads(self._string, strict=False)
        except ValueError:
            decoded = self._string
        self._deltas.append(CallDelta(self.num_calls, decoded))
        self._string = ""
        self.num_calls += 1
        self._state = self._call_end
        return True

    def _call_end(self) -> bool:
        """Leave a call."""
        text = self._held.lstrip()
        if not text:
            return False
        if text[0] != "}":
            return self._give_up()
        self._held = text[1:]
        self._state = self._between
        return True

    def _list_end(self) -> bool:
        """Leave the list; the closing tag may be missing at the end of an answer."""
        text = self._held.lstrip()
        if text.startswith(CLOSE):
            self._held = text[len(CLOSE) :]
            self._raw = ""
            self._state = self._outside
            return True
        if CLOSE.startswith(text):
            self._raw = ""
            self._held = text
            return False
        return self._give_up()

    def _consume(self, size: int) -> None:
        """Move text to what would be handed back."""
        self._raw += self._held[:size]
        self._held = self._held[size:]

    def _give_up(self) -> bool:
        """Hand back what has been read of something that is no call."""
        self._content.append(self._raw + self._held)
        self._raw = self._held = ""
        self._state = self._outside
        return False


def _may_become_head(text: str) -> bool:
    """Whether more text could make `text` the start of a call."""
    compact = re.sub(r'("(?:[^"\\]|\\.)*")|\s+', lambda match: match.group(1) or "", text)
    start = '{"name":"'
    if start.startswith(compact):
        return True
    if not compact.startswith(start):
        return False
    after = re.sub(r'^(?:[^"\\]|\\.)*', "", compact[len(start) :])
    return after in ("", "\\") or '","arguments":'.startswith(after)
