"""The ASGI application: routes, validation, errors."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from nemotrt.serve.engine.probe import ask_engine
from nemotrt.serve.front.http.access import AccessGate
from nemotrt.serve.front.http.api_error import ApiError, from_upstream
from nemotrt.serve.front.http.event_stream import ClientGoneError, EventStream, until_gone
from nemotrt.serve.front.http.request_id import RequestIds
from nemotrt.serve.front.http.tenants import Tenants
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.openai.prepare import CallSettings, Endpoint, unknown_model
from nemotrt.serve.front.schema.openapi import openapi_bytes
from nemotrt.serve.front.upstream.upstream import Fields, Upstream, UpstreamError
from nemotrt.serve.front.workshop import Workshop
from nemotrt.serve.requests.limits import most_body_bytes
from nemotrt.wire.frames import STOPPING

PAGE = Path(__file__).parent / "page.html"
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
}
CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that has gone


@dataclass(frozen=True, slots=True)
class FrontSpec:
    """What the application answers with."""

    model_name: str
    files: EngineFiles
    upstream: Upstream
    tenants: Tenants = field(default_factory=Tenants)
    engine_socket: Path | None = None  # asked for its health; None: only the upstream is
    separate_reasoning: bool = True
    max_body_bytes: int | None = None  # None: what the engine can take
    is_draining: Callable[[], bool] = lambda: False  # whether the whole server is stopping
    aliases: tuple[str, ...] = ()  # other names of the model

    @property
    def model_names(self) -> tuple[str, ...]:
        """Every name that a request may give the model, its own first."""
        return tuple(dict.fromkeys((self.model_name, *self.aliases)))


class Front:
    """The endpoints."""

    def __init__(self, spec: FrontSpec) -> None:
        """Keep what they need."""
        self.spec = spec
        settings = CallSettings(spec.model_names, spec.files, spec.separate_reasoning)
        self.workshop = Workshop(settings)
        self._created = int(time.time())

    async def chat(self, request: Request) -> ASGIApp:
        """Answer POST /v1/chat/completions."""
        return await self._answer(Endpoint.CHAT, request)

    async def completions(self, request: Request) -> ASGIApp:
        """Answer POST /v1/completions."""
        return await self._answer(Endpoint.COMPLETIONS, request)

    async def models(self, request: Request) -> Response:
        """Answer GET /v1/models and GET /v1/models/NAME."""
        name, names = request.path_params.get("name"), self.spec.model_names
        if name is not None and name not in names:
            raise unknown_model(name, names)
        models = [
            {
                "id": one,
                "object": "model",
                "created": self._created,
                "owned_by": "nemotrt",
                "root": self.spec.model_name,
                "max_model_len": self.spec.files.limits.max_seq_len,
            }
            for one in ([name] if name else names)
        ]
        return JSONResponse(models[0] if name else {"object": "list", "data": models})

    async def ready(self, request: Request) -> Response:
        """Answer GET /health and /health/ready: 200 where a request would be answered."""
        status = await self._status()
        return JSONResponse({"status": status}, 200 if status == "ready" else 503)

    async def _status(self) -> str:
        """Return "ready", "draining" from the moment the server begins to stop, or "starting"."""
        if self.spec.is_draining():
            return "draining"
        if not await self.spec.upstream.is_ready():
            return "starting"
        if self.spec.engine_socket is None:
            return "ready"
        engine = await asyncio.to_thread(ask_engine, self.spec.engine_socket, "status")
        if engine is None:
            return "starting"
        return "draining" if engine["is_draining"] else "ready"

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
        return Response(openapi_bytes(), media_type="application/json")

    async def page(self, request: Request) -> Response:
        """Answer GET / with the chat page."""
        return FileResponse(PAGE, headers=PAGE_HEADERS)

    async def _answer(self, endpoint: Endpoint, request: Request) -> ASGIApp:
        """Return a stream or a whole answer.

        Raises:
            ApiError: the body is refused, or the server is stopping.
        """
        if self.spec.is_draining():
            raise from_upstream(UpstreamError(**STOPPING))
        prepared = await self.workshop.prepare(endpoint, await request.body())
        prepared.call.inputs = [self._salted(request, one) for one in prepared.call.inputs]
        if prepared.is_stream:
            return EventStream(prepared.call.chunks(self.spec.upstream))
        work = prepared.call.completion(self.spec.upstream)
        return JSONResponse(await until_gone(work, request.receive))

    def _salted(self, request: Request, inputs: Fields) -> Fields:
        """Return a request's tensors with the salt of whoever asks."""
        authorization = request.headers.get("authorization")
        salt = self.spec.tenants.salt(authorization, inputs.get("cache_salt"))
        return inputs if salt is None else inputs | {"cache_salt": salt}


def create_app(spec: FrontSpec) -> ASGIApp:
    """Return the application."""
    front = Front(spec)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        front.workshop.warm_up()
        yield
        front.workshop.close()
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
    most = spec.max_body_bytes or most_body_bytes(spec.files.limits.max_seq_len)
    gate = Middleware(AccessGate, keys=spec.tenants.keys, max_body_bytes=most)
    handlers: dict[Any, Any] = {
        ApiError: _api_error,
        HTTPException: _http_error,
        ClientGoneError: _client_gone,
        ClientDisconnect: _client_gone,
        Exception: _fault,
    }
    app = Starlette(
        routes=routes, middleware=[gate], exception_handlers=handlers, lifespan=lifespan
    )
    return RequestIds(app)


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
