"""Who may ask, and how much at once: API keys and the size of a request's body."""

import base64
import hashlib
import hmac
import os
from dataclasses import dataclass, field
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nemotrt.errors import ConfigError
from nemotrt.files.text_file import read_text
from nemotrt.serve.front.http.api_error import ApiError

KEYS_VARIABLE = "NEMOTRT_API_KEYS"
OPEN_PATHS = ("/health", "/health/live", "/health/ready", "/ping")
MAX_BODIES = 16  # of that size; the bytes of all requests in flight together


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """Digests of the keys that are let in; none means everyone is."""

    digests: tuple[bytes, ...] = field(default=(), repr=False)

    def admits(self, authorization: str | None) -> bool:
        """Whether an Authorization header has a key, where one is needed."""
        return not self.digests or self.holder(authorization) is not None

    def holder(self, authorization: str | None) -> bytes | None:
        """Return the digest of the key in a header, None if it has none of these.

        Every key is compared, in constant time. Bearer is what API clients send; Basic, with the
        key as the password, what browsers can.
        """
        digest = hashlib.sha256(_presented_key(authorization or "").encode()).digest()
        matches = [hmac.compare_digest(digest, known) for known in self.digests]
        return digest if any(matches) else None


def no_key() -> ApiError:
    """Return the error for a request without a key."""
    return ApiError(401, "a valid API key is needed.", code="invalid_api_key")


def authorization_of(headers: Headers) -> str | None:
    """Return the Authorization header; Anthropic's clients send the key as x-api-key instead."""
    own_key = headers.get("x-api-key")
    return f"Bearer {own_key}" if own_key is not None else headers.get("authorization")


def _presented_key(authorization: str) -> str:
    """Return the key in an Authorization header, "" if there is none."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def environment_keys() -> list[str]:
    """Return the keys in $NEMOTRT_API_KEYS, separated by commas."""
    keys = (key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(","))
    return [key for key in keys if key]


def read_api_keys(path: Path | None) -> ApiKeys:
    """Return the keys in a file, one per line, and in $NEMOTRT_API_KEYS, separated by commas.

    Raises:
        ConfigError: the file is missing, unreadable or has no key, or others may read it.
    """
    keys = environment_keys()
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"there is no file of API keys at {path}.")
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"others may read {path}; run: chmod 600 {path}")
        lines = [line.strip() for line in read_text(path).splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise ConfigError(f"{path} has no API key.")
        if not all(key.isprintable() for key in found):
            raise ConfigError(f"{path} is no file of API keys: a line holds control characters.")
        keys += found
    return ApiKeys(tuple(hashlib.sha256(key.encode()).digest() for key in keys))


class AccessGate:
    """Middleware: refuses requests without a key, and bodies that are too large."""

    def __init__(self, app: ASGIApp, keys: ApiKeys, max_body_bytes: int) -> None:
        """Stand before `app`."""
        self._app = app
        self._keys = keys
        self._max_body_bytes = max_body_bytes
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through or answer with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check(scope["path"], headers)
        except ApiError as error:
            await error.answer(scope, receive, send)
            return
        body = Body(receive, self)
        try:
            await self._app(scope, body.receive, send)
        finally:
            self._held_bytes -= body.num_bytes

    def take(self, body: "Body", num_new: int) -> None:
        """Account for more bytes of a body: a chunked one says its size only so.

        Raises:
            ApiError: it is too large, or all bodies together are.
        """
        if body.num_bytes + num_new > self._max_body_bytes:
            raise self._too_large()
        if self._held_bytes + num_new > MAX_BODIES * self._max_body_bytes:
            raise ApiError(503, "too many large requests; try later.", code="queue_full")
        body.num_bytes += num_new
        self._held_bytes += num_new

    def _check(self, path: str, headers: Headers) -> None:
        """Raise ApiError for a request that is not let in."""
        if path not in OPEN_PATHS and not self._keys.admits(authorization_of(headers)):
            raise no_key()
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self._max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> ApiError:
        limit = self._max_body_bytes
        return ApiError(413, f"the body exceeds {limit} bytes.", code="request_too_large")


class Body:
    """One request's messages, counted."""

    def __init__(self, receive: Receive, gate: AccessGate) -> None:
        """Start with none."""
        self.num_bytes = 0
        self._receive = receive
        self._gate = gate

    async def receive(self) -> Message:
        """Return the next message; ApiError once the body is too large."""
        message = await self._receive()
        self._gate.take(self, len(message.get("body", b"")))
        return message
