"""What keeps other sites' pages in a browser from using a server on this machine."""

import ipaddress
import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from nemotrt.errors import ConfigError
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.processes.options import FrontOptions

JSON = "application/json"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
ORIGIN = re.compile(r"https?://[^/?#@\s]+", re.ASCII)
ANY_ORIGIN = "*"
SHOWN_HEADERS = ["X-Request-Id", "Retry-After"]
MAX_AGE_S = 600  # for which a browser need not ask again


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names by which a server may be called; a page of another one may be behind any other.

    A page can have its own name lead to 127.0.0.1 (DNS rebinding): then a browser lets it read
    answers, and the Host header alone says whom it meant.
    """

    names: frozenset[str] = LOOPBACK_NAMES
    is_open: bool = False  # to all names: it listens to other machines, who may call it anything

    def check(self, headers: Headers) -> None:
        """Raise ApiError for a request to another name, or to two."""
        if len(headers.getlist("host")) > 1:
            raise ApiError(400, "the request has more than one Host.", code="http_error")
        name = re.sub(r":\d*$", "", headers.get("host", "")).lower().rstrip(".")
        if not (self.is_open or name in self.names):
            raise ApiError(
                403,
                f"the Host {name[:80]!r} is none of this server's; start it with --allowed-host, "
                "if it is called so.",
                code="unknown_host",
            )


def read_hosts(told: FrontOptions) -> Hosts:
    """Return the names that the options allow: those told, and this machine's on loopback.

    Raises:
        ConfigError: a name is none.
    """
    for name in told.allowed_host:
        if not re.fullmatch(r"[\w.-]+|\[[0-9a-fA-F:.]+\]", name, re.ASCII):
            raise ConfigError(
                f"--allowed-host takes a name without scheme and port, such as nemo.example or "
                f"[::1], got {name!r}."
            )
    names = {name.lower().rstrip(".") for name in told.allowed_host}
    return Hosts(LOOPBACK_NAMES | names, is_open=not (names or _is_loopback(told.host)))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_origins(origins: tuple[str, ...]) -> None:
    """Raise ConfigError for what is no origin of a page."""
    for origin in origins:
        if origin != ANY_ORIGIN and not ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"--cors-origin takes an origin such as https://chat.example, or *, got {origin!r}."
            )


def cors(origins: tuple[str, ...]) -> list[Middleware]:
    """Return what lets pages of these origins use the API; keys go in headers, never in cookies."""
    if not origins:
        return []
    told = Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=SHOWN_HEADERS,
        max_age=MAX_AGE_S,
    )
    return [told]


class HostGate:
    """Middleware: refuses requests to other names."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        """Stand before `app`."""
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through or answer with an error."""
        if scope["type"] == "http":
            try:
                self._hosts.check(Headers(scope=scope))
            except ApiError as error:
                await error.answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def check_json(headers: Headers) -> None:
    """Raise ApiError for a body that is not said to be JSON, as it is.

    A page of another site can send no JSON unasked, but any text as a form or without a type.
    """
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        text = (
            f"the body's Content-Encoding {coding[:80]!r} is not supported; send it uncompressed."
        )
        raise ApiError(415, text, code="unsupported_media_type")
    told = headers.get("content-type", "")
    if told.partition(";")[0].strip().lower() != JSON:
        found = f"got {told[:80]!r}" if told else "it has none"
        raise ApiError(
            415,
            f"the body's Content-Type must be {JSON}, {found} (curl: --json).",
            code="unsupported_media_type",
        )
