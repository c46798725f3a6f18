"""What the front asks of whatever runs the requests behind it."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

Fields = dict[str, Any]


class UpstreamError(Exception):
    """A request that failed behind the front; `code` is the machine-readable reason."""

    def __init__(self, code: str, message: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.code = code
        self.message = message


class Upstream(Protocol):
    """Runs requests given as input tensors; closing the iterator cancels the request."""

    def generate(self, inputs: Fields) -> AsyncIterator[Fields]:
        """Yield output tensors by name; the last ones have "final".

        Raises:
            UpstreamError: the request was refused or failed.
        """

    async def is_ready(self) -> bool:
        """Whether requests would be answered now."""

    async def close(self) -> None:
        """Disconnect."""


def split_error(message: str) -> UpstreamError:
    """Return the error in a "code: message" text; anything else is an internal one."""
    code, separator, rest = message.partition(": ")
    if separator and code.replace("_", "").isalpha() and code.islower():
        return UpstreamError(code, rest)
    return UpstreamError("engine_failed", message)
