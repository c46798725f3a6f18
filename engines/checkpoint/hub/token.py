"""The user's token of the hub: out of the environment while a command runs, but for a download.

So no process that a command starts (a server, a compiler) inherits it; it is never printed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_held: dict[str, str] = {}


@contextmanager
def token_held() -> Iterator[None]:
    """Take the token out of the environment; it is back when the block ends."""
    _held.update({name: os.environ.pop(name) for name in VARIABLES if name in os.environ})
    try:
        yield
    finally:
        os.environ.update(_held)
        _held.clear()


@contextmanager
def token_released() -> Iterator[None]:
    """Put the token back into the environment, for the hub's own client to find it."""
    os.environ.update(_held)
    try:
        yield
    finally:
        for name in _held:
            os.environ.pop(name, None)
