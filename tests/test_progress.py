"""The bars, drawn on a terminal that is a string."""

import io
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from nemotrt.progress import byte_progress, count_progress


class Terminal(io.StringIO):
    """A stderr that says that it is a terminal."""

    def isatty(self) -> bool:
        """Return whether bars are drawn."""
        return True


def test_a_terminal_sees_gb_per_second_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with byte_progress("int8-wo", 4 * 10**9, quiet=False) as done:
        for _ in range(3):
            time.sleep(0.12)
            done(10**9)
        time.sleep(0.2)
    text = terminal.getvalue()
    assert "int8-wo" in text and "3.0/4.0 GB" in text
    assert re.search(r"\d\.\d GB/s", text) and re.search(r"0:00:0\d", text)


@pytest.mark.parametrize("bar", [byte_progress, count_progress])
@pytest.mark.parametrize(("is_terminal", "quiet"), [(True, True), (False, False)])
def test_nothing_is_drawn_elsewhere_or_when_quiet(
    monkeypatch: pytest.MonkeyPatch, bar: Callable[..., Any], is_terminal: bool, quiet: bool
) -> None:
    stream = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with bar("x", 2, quiet=quiet) as done:
        done(1)
    assert stream.getvalue() == ""
