"""Paths of clients whose base URL lacks /v1, or has a slash too many."""

from starlette.types import ASGIApp, Receive, Scope, Send

FIRST = {"chat", "completions", "embeddings", "messages", "models", "responses"}


class ShortPaths:
    """Middleware: reads /chat/completions and //v1/chat/completions/ as /v1/chat/completions."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, by its whole path."""
        if scope["type"] == "http":
            path = scope["path"].strip("/")
            short = path.partition("/")[0] in FIRST
            scope = {**scope, "path": f"/v1/{path}" if short else f"/{path}"}
        await self._app(scope, receive, send)
