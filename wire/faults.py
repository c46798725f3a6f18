"""How a fault is told where its message may quote what a client sent: by its type and its place."""

import contextlib
import sys
import traceback


def place_of(error: BaseException) -> str:
    """Return the lines of a traceback without any exception's message."""
    frames = traceback.format_tb(error.__traceback__)
    return "".join(["Traceback (most recent call last):\n", *frames, type(error).__qualname__])


def print_place(error: BaseException) -> None:
    """Say where a request's fault is, on standard error, which may be a file on a full disk."""
    with contextlib.suppress(OSError):
        print(place_of(error), file=sys.stderr, flush=True)
