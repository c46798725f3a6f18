"""Paths of clients whose base URL lacks /v1, as llama.cpp's server takes them too."""

from starlette.types import ASGIApp, Receive, Scope, Send

FIRST = {"chat", "completions", "embeddings", "messages", "models", "responses"}


class ShortPaths:
    """Middleware: reads /chat/completions as /v1/chat/completions, and its like."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand before `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, by its whole path."""
        if scope["type"] == "http" and scope["path"][1:].partition("/")[0] in FIRST:
            scope = {**scope, "path": f"/v1{scope['path']}"}
        await self._app(scope, receive, send)
