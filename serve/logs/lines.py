"""A log record as one line: for people, or a JSON object.

A record's fields are those of `extra={"fields": {...}}`, and its request's id if it has one. An
exception is told without its message, which may quote what was sent: by its type and its place.
Whoever knows that it quotes nobody puts it into his own message.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

from nemotrt.serve.logs.options import LogFormat
from nemotrt.wire.faults import place_of
from nemotrt.wire.trail import CURRENT

OWN_HUMAN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ |  ")
JSON_START = '{"timestamp": "'
ENCODER = json.JSONEncoder(default=str)
NOT_ONE = re.compile(r'[\s"=\\]')  # what a value has that needs quotes
INDENT = "\n  "  # a line of a log that begins so goes on from the one before
# Source: Triton 2.51's log, which is glog's: a letter, month and day, time.
GLOG = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d")
GLOG_LEVELS = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}


class Lines(logging.Formatter):
    """Lines of one process."""

    def __init__(self, process: str, form: LogFormat) -> None:
        """Say of each line which process wrote it; a person sees that by the file."""
        super().__init__()
        self._process, self._form = process, form

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        fields: dict[str, Any] = dict(getattr(record, "fields", {}))
        if "request_id" not in fields and CURRENT.get().request_id:
            fields = {"request_id": CURRENT.get().request_id, **fields}
        if not fields.get("request_id", True):
            del fields["request_id"]  # it has none
        error = record.exc_info[1] if record.exc_info else None
        fault = "" if error is None else place_of(error)
        when = _moment(record.created)
        return self._line(when, record.levelname, record.name, record.getMessage(), fields, fault)

    def of_output(self, text: str, now_s: float, least: int) -> str | None:
        """Return the line for one that the process wrote to its standard error.

        One of our own passes. What another's code wrote gets its time and its place; None where it
        says of itself that it is less than the `least` level.
        """
        if self._form is LogFormat.HUMAN and OWN_HUMAN.match(text):
            return plain(text)
        if self._form is LogFormat.JSON and _is_own(text):
            return text
        letter = GLOG.match(text)
        level = GLOG_LEVELS[letter[1]] if letter else "INFO"
        if letter and logging.getLevelNamesMapping()[level] < least:
            return None
        return self._line(_moment(now_s), level, self._process, text, {}, "")

    def _line(
        self, when: str, level: str, name: str, message: str, fields: dict[str, Any], fault: str
    ) -> str:
        if self._form is LogFormat.HUMAN:
            said = [when, level, name, plain(message)]
            said += [f"{key}={_value(value)}" for key, value in fields.items()]
            rest = "".join(INDENT + plain(line) for line in fault.splitlines())
            return " ".join(said) + rest
        told = {"timestamp": when, "level": level, "logger": name, "process": self._process}
        whole = told | {"message": message} | fields | ({"fault": fault} if fault else {})
        text = ENCODER.encode(whole)
        return text if r"\ud" not in text else ENCODER.encode(_without_surrogates(whole))


def plain(text: str) -> str:
    """Return a text in which nothing can end a line, or change how a terminal shows it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _value(value: Any) -> str:
    """Return a field's value; one that could be taken for two stands in quotes."""
    if isinstance(value, list):
        value = ",".join(map(str, value))
    if not isinstance(value, str):
        return f"{value:g}" if isinstance(value, float) else plain(str(value))
    is_one = bool(value) and not NOT_ONE.search(value)
    return plain(value if is_one else json.dumps(value, ensure_ascii=False))


def _moment(time_s: float) -> str:
    """Return a time as RFC 3339 has it, in UTC."""
    when = datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")
    return when.replace("+00:00", "Z")


def _is_own(text: str) -> bool:
    """Whether a line is one of our JSON objects."""
    try:
        found = json.loads(text) if text.startswith(JSON_START) else None
    except ValueError:
        return False
    return isinstance(found, dict) and {"level", "logger", "process", "message"} <= found.keys()


def _without_surrogates(value: Any) -> Any:
    """Return a value whose texts are Unicode: half a pair is no character to a strict reader."""
    if isinstance(value, dict):
        return {name: _without_surrogates(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
