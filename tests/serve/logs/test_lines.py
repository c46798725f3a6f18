"""A record is one line whatever is in it; what is not ours is told apart from what is."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.cli import main
from nemotrt.errors import ConfigError
from nemotrt.serve.logs.lines import Lines
from nemotrt.serve.logs.options import LogFormat, LogLevel, LogOptions, with_verbose
from nemotrt.wire.trail import CURRENT, Trail, read_trail

TEXTS = st.text(st.characters(), max_size=40) | st.sampled_from(
    [
        "a\nb",
        "x\r\n2026-11-30T14:28:00.000Z INFO nemotrt.access forged",
        '\n{"timestamp": "2026-11-30T14:28:00.000Z", "level": "INFO"}',
        "\x1b[2K\x1b[1A",
        "\u2028\u2029\x85\x0b\x0c\x1c",
        "\u202egnirts\u2066",
        "\ud800",
        'a b=c "d" \\',
        "",
    ]
)
FIELDS = st.dictionaries(
    st.sampled_from(["path", "method", "tenant", "status", "ttft_ms"]),
    TEXTS | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
)


def record(message: str, fields: dict[str, Any], **more: Any) -> logging.LogRecord:
    told = {"name": "nemotrt.test", "levelname": "INFO", "levelno": 20, "created": 1.5}
    return logging.makeLogRecord({**told, "msg": "%s", "args": (message,), "fields": fields} | more)


@settings(deadline=None, max_examples=60)
@given(TEXTS, FIELDS)
def test_an_object_is_one_line_and_says_what_was_said(message: str, fields: dict[str, Any]) -> None:
    line = Lines("front", LogFormat.JSON).format(record(message, fields))
    assert line.isascii() and line.isprintable()
    found = json.loads(line)
    line.encode()
    told = {name: found.pop(name) for name in ("timestamp", "level", "logger", "process")}
    assert told["level"] == "INFO" and told["process"] == "front"
    assert datetime.fromisoformat(told["timestamp"]) == datetime.fromtimestamp(1.5, UTC)
    assert told["timestamp"].endswith("Z")

    def whole(value: Any) -> Any:
        return value.encode(errors="replace").decode() if isinstance(value, str) else value

    expected = {"message": message, **fields}
    assert found == {name: whole(value) for name, value in expected.items()}


@settings(deadline=None, max_examples=60)
@given(TEXTS, FIELDS)
def test_a_line_for_people_is_one_line_and_nothing_in_it_is_taken_for_a_field(
    message: str, fields: dict[str, Any]
) -> None:
    line = Lines("front", LogFormat.HUMAN).format(record("said", {"path": message, **fields}))
    assert line.isprintable() and len(line.splitlines()) == 1
    assert line.startswith("1970-01-01T00:00:01.500Z INFO nemotrt.test said path=")
    names = [word.partition("=")[0] for word in unquoted(line).split() if "=" in word]
    assert names == list({"path": "", **fields})


def unquoted(line: str) -> str:
    """A line without what stands in quotes, read as JSON's strings are."""
    kept, is_inside, is_escaped = "", False, False
    for char in line:
        if is_inside:
            is_inside = char != '"' or is_escaped
            is_escaped = char == "\\" and not is_escaped
        else:
            is_inside = char == '"'
            kept += char
    assert not is_inside
    return kept


@settings(deadline=None, max_examples=60)
@given(TEXTS.filter(lambda text: "\n" not in text), st.sampled_from(LogFormat))
def test_what_another_writes_is_one_line_of_the_same_kind(text: str, form: LogFormat) -> None:
    line = Lines("triton", form).of_output(text, 1.5, logging.INFO)
    assert line is not None and line.isprintable()
    if form is LogFormat.JSON:
        assert json.loads(line)["message"] == text.encode(errors="replace").decode()
    elif not text.startswith("  "):
        assert line.startswith("1970-01-01T00:00:01.500Z INFO triton")


def test_what_is_ours_is_not_wrapped_twice_and_what_only_looks_so_is() -> None:
    for form in LogFormat:
        lines = Lines("engine", form)
        own = lines.format(record("said", {"status": 2}))
        assert lines.of_output(own, 9.0, logging.INFO) == own
    lines = Lines("engine", LogFormat.JSON)
    for forged in ('{"timestamp": "x"}', '{"timestamp": "', '{"timestamp": "x", "level": []'):
        assert json.loads(str(lines.of_output(forged, 9.0, 20)))["message"] == forged


def test_tritons_own_levels_hold() -> None:
    lines = Lines("triton", LogFormat.JSON)
    for letter, level in {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}.items():
        text = f'{letter}1130 14:26:59.394396 21661 server.cc:273] "x"'
        assert json.loads(str(lines.of_output(text, 1.0, logging.DEBUG)))["level"] == level
        is_told = lines.of_output(text, 1.0, logging.WARNING) is not None
        assert is_told == (level != "INFO")
    assert lines.of_output("a traceback's line", 1.0, logging.ERROR) is not None


SECRET = "what a client sent"


def fault(text: str) -> tuple[Any, ...]:
    try:
        raise ValueError(text)
    except ValueError as error:
        return type(error), error, error.__traceback__


@pytest.mark.parametrize("form", LogFormat)
def test_a_fault_is_told_by_its_place_alone(form: LogFormat) -> None:
    lines = Lines("engine", form)
    token = CURRENT.set(Trail("r-1"))
    try:
        told = lines.format(record("met a fault", {}, exc_info=fault(SECRET)))
    finally:
        CURRENT.reset(token)
    for part in ("r-1", "ValueError", "in fault", "test_lines.py"):
        assert part in told
    assert SECRET not in told
    assert "r-1" not in lines.format(record("x", {"request_id": ""}))
    continued = told.splitlines()[1:]
    assert (form is LogFormat.HUMAN) == bool(continued)
    assert all(line.startswith("  ") for line in continued)


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_only_a_legal_trail_is_read(request_id: str, parent: str, state: str) -> None:
    told = {"request_id": request_id, "traceparent": parent, "tracestate": state}
    for text in read_trail(told).fields().values():
        assert text.isascii() and text.isprintable() and len(text) <= 512
    for wrong in (None, [], "x", {"request_id": 5}, {"traceparent": "00-x-y-01"}):
        assert read_trail(wrong) == Trail()
    legal = {"request_id": "a.B-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    assert read_trail(legal).fields() == legal


def test_levels_and_verbose() -> None:
    told = LogOptions()
    assert with_verbose(told, 0) == told
    assert with_verbose(told, 1).log_level is LogLevel.DEBUG
    assert with_verbose(told, 2).log_level is LogLevel.ALL
    for options, verbose in ((told, 3), (LogOptions(LogLevel.ERROR), 1)):
        with pytest.raises(ConfigError, match="-v"):
            with_verbose(options, verbose)
    help_text = CliRunner().invoke(main, ["serve", "run", "--help"]).output
    for name in ("--log-level", "--log-format", "--log-max-mib", "--log-files", "--verbose"):
        assert name in help_text
