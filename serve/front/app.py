"""The ASGI application: routes, validation, errors."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from nemotrt.serve.engine_probe import ask_engine, engine_status
from nemotrt.serve.front.access import MAX_BODY_BYTES, AccessGate, ApiKeys
from nemotrt.serve.front.api_error import ApiError
from nemotrt.serve.front.chat_endpoint import ChatCall
from nemotrt.serve.front.completion_endpoint import CompletionCall
from nemotrt.serve.front.engine_files import EngineFiles
from nemotrt.serve.front.event_stream import ClientGoneError, EventStream, answer_unless_gone
from nemotrt.serve.front.openapi import openapi_document
from nemotrt.serve.front.schema import ChatRequest, CompletionRequest, Sampling, StreamOptions
from nemotrt.serve.front.upstream import Upstream

PAGE = Path(__file__).parent / "page.html"
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
}
CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that has gone
Body = TypeVar("Body", bound=Sampling)


@dataclass(frozen=True, slots=True)
class FrontSpec:
    """What the application answers with."""

    model_name: str
    files: EngineFiles
    upstream: Upstream
    keys: ApiKeys = field(default_factory=ApiKeys)
    engine_socket: Path | None = None  # asked for its health; None: only the upstream is
    separate_reasoning: bool = True
    max_body_bytes: int = MAX_BODY_BYTES


class Front:
    """The endpoints."""

    def __init__(self, spec: FrontSpec) -> None:
        """Keep what they need."""
        self.spec = spec
        self._created = int(time.time())

    async def chat(self, request: Request) -> ASGIApp:
        """Answer POST /v1/chat/completions."""
        body = await self._body(request, ChatRequest)
        call = ChatCall(body, self.spec.files, separate_reasoning=self.spec.separate_reasoning)
        return await self._answer(call, body, request)

    async def completions(self, request: Request) -> ASGIApp:
        """Answer POST /v1/completions."""
        body = await self._body(request, CompletionRequest)
        return await self._answer(CompletionCall(body, self.spec.files), body, request)

    async def models(self, request: Request) -> Response:
        """Answer GET /v1/models and GET /v1/models/NAME."""
        name = request.path_params.get("name")
        if name is not None and name != self.spec.model_name:
            raise self._unknown_model(name)
        model = {
            "id": self.spec.model_name,
            "object": "model",
            "created": self._created,
            "owned_by": "nemotrt",
            "max_model_len": self.spec.files.limits.max_seq_len,
        }
        return JSONResponse(model if name else {"object": "list", "data": [model]})

    async def ready(self, request: Request) -> Response:
        """Answer GET /health and /health/ready: 200 where a request would be answered."""
        is_ready = await self.spec.upstream.is_ready()
        if is_ready and self.spec.engine_socket is not None:
            is_ready = await asyncio.to_thread(engine_status, self.spec.engine_socket) is not None
        return JSONResponse(
            {"status": "ready" if is_ready else "starting"}, 200 if is_ready else 503
        )

    async def live(self, request: Request) -> Response:
        """Answer GET /health/live."""
        return JSONResponse({"status": "live"})

    async def metrics(self, request: Request) -> Response:
        """Answer GET /metrics with the engine's measurements, in Prometheus form."""
        socket = self.spec.engine_socket
        if socket is None:
            raise ApiError(404, "this front is apart from the engine, which alone has metrics.")
        answer = await asyncio.to_thread(ask_engine, socket, "metrics")
        if answer is None:
            raise ApiError(503, "the engine process is starting.", code="engine_unavailable")
        return PlainTextResponse(answer["text"], media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        """Answer GET /openapi.json."""
        return JSONResponse(openapi_document())

    async def page(self, request: Request) -> Response:
        """Answer GET / with the chat page."""
        return FileResponse(PAGE, headers=PAGE_HEADERS)

    async def _answer(
        self, call: ChatCall | CompletionCall, body: Sampling, request: Request
    ) -> ASGIApp:
        """Return a stream or a whole answer."""
        if body.stream:
            return EventStream(call.chunks(self.spec.upstream))
        work = call.completion(self.spec.upstream)
        return JSONResponse(await answer_unless_gone(work, request))

    async def _body(self, request: Request, kind: type[Body]) -> Body:
        """Return the checked body.

        Raises:
            ApiError: it is no JSON, a field is unknown or wrong, or there is no such model.
        """
        try:
            body = kind.model_validate_json(await request.body())
        except pydantic.ValidationError as error:
            raise _invalid(error) from None
        if body.model != self.spec.model_name:
            raise self._unknown_model(body.model)
        if body.stream_options not in (None, StreamOptions()) and not body.stream:
            raise ApiError(400, "stream_options needs stream.", param="stream_options")
        return body

    def _unknown_model(self, name: str) -> ApiError:
        known = self.spec.model_name
        return ApiError(404, f"there is no model {name!r}; known: {known}.", code="model_not_found")


def create_app(spec: FrontSpec) -> Starlette:
    """Return the application."""
    front = Front(spec)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await spec.upstream.close()

    routes = [
        Route("/v1/chat/completions", front.chat, methods=["POST"]),
        Route("/v1/completions", front.completions, methods=["POST"]),
        Route("/v1/models", front.models),
        Route("/v1/models/{name:path}", front.models),
        Route("/health", front.ready),
        Route("/health/ready", front.ready),
        Route("/health/live", front.live),
        Route("/metrics", front.metrics),
        Route("/openapi.json", front.openapi),
        Route("/", front.page),
    ]
    gate = Middleware(AccessGate, keys=spec.keys, max_body_bytes=spec.max_body_bytes)
    handlers: dict[Any, Any] = {
        ApiError: _api_error,
        HTTPException: _http_error,
        ClientGoneError: _client_gone,
        Exception: _fault,
    }
    return Starlette(
        routes=routes, middleware=[gate], exception_handlers=handlers, lifespan=lifespan
    )


async def _api_error(request: Request, error: ApiError) -> Response:
    return error.response()


async def _http_error(request: Request, error: HTTPException) -> Response:
    response = ApiError(error.status_code, error.detail, code="http_error").response()
    response.headers.update(error.headers or {})
    return response


async def _client_gone(request: Request, error: ClientGoneError) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _fault(request: Request, error: Exception) -> Response:
    """Answer for a bug of ours; the server logs its traceback."""
    return ApiError(500, "the server has a fault; its log says more.", code="fault").response()


def _invalid(error: pydantic.ValidationError) -> ApiError:
    """Return the error for a body that does not fit its schema: the first fault, by its field."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    parts = [str(part) for part in first["loc"]]
    where = ".".join(part for part in parts if not part.startswith("("))  # tags of unions
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"{where} is not supported; leave it out.", param=where)
    message = first["msg"] if not where else f"{where}: {first['msg']}."
    return ApiError(400, message, param=where or None)
