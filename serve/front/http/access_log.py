"""One line for each request that the front has answered, and its span where there is tracing.

It says who asked for what, how it ended, how long it took and how many tokens it was; never what
was asked or answered. A tenant is told by the place of its key among the keys.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nemotrt.serve.front.http.access import authorization_of
from nemotrt.serve.front.http.tenants import Tenants
from nemotrt.serve.logs.tracing import Tracing
from nemotrt.wire.trail import CURRENT, Trail

log = logging.getLogger("nemotrt.access")
CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that has gone
QUIET_PATHS = ("/health", "/health/live", "/health/ready", "/ping", "/metrics")  # asked all day
MAX_PATH = 200  # characters that are told


class AccessLog:
    """Middleware: follows each request from its first byte to the last of its answer."""

    def __init__(
        self,
        app: ASGIApp,
        tenants: Tenants,
        tracing: Tracing | None = None,
        operations: Mapping[str, str] | None = None,
    ) -> None:
        """Stand before `app`; `operations` are those of spans, by the paths that have one."""
        self._app, self._tenants = app, tenants
        self._tracing, self._operations = tracing, operations or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and tell of it afterwards."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        trail = Trail(scope["state"]["request_id"])
        span = None
        if self._tracing is not None and method == "POST" and path in self._operations:
            span = self._tracing.begin(method, path, headers, self._operations[path])
            trail = self._tracing.trail(span, trail.request_id)
        CURRENT.set(trail)  # this task is the request's own
        answer = _Answer(send)
        try:
            await self._app(scope, receive, answer.send)
        finally:
            told = {"request_id": trail.request_id, "method": method, "path": path[:MAX_PATH]}
            told |= answer.fields() | _work(scope["state"])
            tenant = self._tenants.name(authorization_of(headers))
            told |= {"tenant": tenant} if tenant else {}
            if span is not None and self._tracing is not None:
                told["trace_id"] = trail.traceparent.split("-")[1]
                self._tracing.end(span, told)
            is_quiet = path in QUIET_PATHS and told["status"] < 400
            log.log(logging.DEBUG if is_quiet else logging.INFO, "answered", extra={"fields": told})


class _Answer:
    """What has been sent so far, on its way to the client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started_s = time.monotonic()
        self._first_s: float | None = None  # of a stream alone
        self._status = CLIENT_CLOSED_REQUEST
        self._is_whole = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body":
            self._is_whole = not message.get("more_body", False)
            if self._first_s is None and not self._is_whole and message.get("body"):
                self._first_s = time.monotonic()
        await self._send(message)

    def fields(self) -> dict[str, Any]:
        """Return the status and the times; a client that has gone is told by `is_cut_short`."""
        ended_s = time.monotonic()
        told = {"status": self._status, "duration_ms": _ms(ended_s - self._started_s)}
        if self._first_s is not None:
            told["ttft_ms"] = _ms(self._first_s - self._started_s)
        return told if self._is_whole else {**told, "is_cut_short": True}


def _work(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the call counted, and the error's code."""
    call, error = state.get("call"), state.get("error")
    counts: dict[str, Any] = {} if call is None else call.counts()
    return counts if error is None else {**counts, "error": error}


def _ms(duration_s: float) -> float:
    return round(duration_s * 1e3, 2)
