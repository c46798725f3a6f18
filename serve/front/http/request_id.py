"""A request's id: the client's own X-Request-Id, or a new one; every answer has it."""

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nemotrt.serve.front.http.api_error import ANTHROPIC_PATH
from nemotrt.wire.trail import LEGAL_ID

HEADER = "x-request-id"
ANTHROPIC_HEADER = "request-id"  # Source: Anthropic's API reference, errors


class RequestIds:
    """Gives each request its id, as `request_id` of its state and in the answer's header.

    A header that is no id is not taken; since it can't change the answer, it is no error either.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Stand before `app`, so that its refusals and faults have an id too."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if LEGAL_ID.fullmatch(given) else secrets.token_hex(16)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                if scope["path"].startswith(ANTHROPIC_PATH):
                    headers[ANTHROPIC_HEADER] = request_id
            await send(message)

        await self.app(scope, receive, send_named)
