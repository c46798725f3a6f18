"""The ASGI application: routes, validation, errors."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    Response,
)
from starlette.routing import Route
from starlette.types import ASGIApp

from nemotrt.serve.engine.probe import ask_engine
from nemotrt.serve.front.doors.facts import FACTS
from nemotrt.serve.front.doors.prepare import NeedsEarlierError
from nemotrt.serve.front.doors.responses.call import ResponseCall
from nemotrt.serve.front.doors.responses.endpoint import ResponsesEndpoint
from nemotrt.serve.front.doors.vllm_metrics import vllm_text
from nemotrt.serve.front.http.access import AccessGate, authorization_of
from nemotrt.serve.front.http.access_log import AccessLog
from nemotrt.serve.front.http.api_error import ApiError, from_upstream
from nemotrt.serve.front.http.browsers import HostGate, Hosts, check_json, cors
from nemotrt.serve.front.http.event_stream import EventStream, until_gone
from nemotrt.serve.front.http.handlers import HANDLERS
from nemotrt.serve.front.http.request_id import RequestIds
from nemotrt.serve.front.http.short_paths import ShortPaths
from nemotrt.serve.front.http.tenants import Tenants
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.openai.prepare import CallSettings, Prepared
from nemotrt.serve.front.page.routes import PAGE_ROUTES
from nemotrt.serve.front.upstream.stopping import StoppingUpstream
from nemotrt.serve.front.upstream.upstream import Fields, Upstream, UpstreamError
from nemotrt.serve.front.workshop import Workshop
from nemotrt.serve.logs.tracing import Tracing
from nemotrt.serve.processes.options import DEFAULT_STORED_MIB
from nemotrt.serve.requests.endpoints import Endpoint
from nemotrt.serve.requests.limits import most_body_bytes
from nemotrt.wire.frames import STOPPING

ANY_HOST = Hosts(is_open=True)


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
    cors_origins: tuple[str, ...] = ()  # of pages that may use the API
    vllm_metrics: bool = False
    stored_responses_bytes: int = DEFAULT_STORED_MIB << 20  # of /v1/responses, in memory
    aliases: tuple[str, ...] = ()  # other names of the model
    adapters: tuple[str, ...] = ()  # of the engine, each a model by its name
    hosts: Hosts = ANY_HOST
    tracing: Tracing | None = None

    @property
    def model_names(self) -> tuple[str, ...]:
        """Every name that a request may give the model, its own first."""
        return tuple(dict.fromkeys((self.model_name, *self.aliases)))


class Front:
    """The endpoints."""

    def __init__(self, spec: FrontSpec) -> None:
        """Keep what they need."""
        self.spec = spec
        self.upstream = StoppingUpstream(spec.upstream, spec.is_draining)
        settings = CallSettings(
            spec.model_names, spec.files, spec.separate_reasoning, spec.adapters
        )
        self.settings = settings
        self.workshop = Workshop(settings)
        self.responses = ResponsesEndpoint(spec.tenants, spec.stored_responses_bytes)
        self._created = int(time.time())

    async def models(self, request: Request) -> Response:
        """Answer GET /v1/models and GET /v1/models/NAME."""
        name, names = request.path_params.get("name"), self.spec.model_names
        if name is not None:
            self.settings.adapter_of(name)
        models = [
            {
                "id": one,
                "object": "model",
                "created": self._created,
                "owned_by": "nemotrt",
                "root": self.spec.model_name,
                **({} if one in names else {"parent": self.spec.model_name}),
                "max_model_len": self.spec.files.limits.max_seq_len,
            }
            for one in ([name] if name else (*names, *self.spec.adapters))
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
        text = answer["text"]
        if self.spec.vllm_metrics:
            text += vllm_text(text, self.spec.model_name)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def answer(self, endpoint: Endpoint, request: Request) -> ASGIApp:
        """Answer a POST to an endpoint: return a stream or a whole answer.

        Raises:
            ApiError: the body is refused, or the server is stopping.
        """
        check_json(request.headers)
        self._check_goes_on()
        prepared = await self._prepared(endpoint, request)
        self._check_goes_on()  # it may have taken long
        call = request.state.call = prepared.call
        call.inputs = [self._salted(request, one) for one in call.inputs]
        if isinstance(call, ResponseCall):
            self.responses.keep(request, call)
        if prepared.is_stream:
            chunks = call.chunks(self.upstream)
            return EventStream(chunks, call.stream_end, is_padded=prepared.is_padded)
        work = call.completion(self.upstream)
        return JSONResponse(await until_gone(work, request.receive))

    def _check_goes_on(self) -> None:
        """Raise ApiError if the server is stopping: the engine would never see a request."""
        if self.spec.is_draining():
            raise from_upstream(UpstreamError(**STOPPING))

    async def _prepared(self, endpoint: Endpoint, request: Request) -> Prepared:
        """Return the call, which may go on from a kept response."""
        raw = await request.body()
        try:
            return await self.workshop.prepare(endpoint, raw)
        except NeedsEarlierError as needed:
            earlier = self.responses.earlier(request, needed.response_id)
            return await self.workshop.prepare(endpoint, raw, earlier)

    def _salted(self, request: Request, inputs: Fields) -> Fields:
        """Return a request's tensors with the salt of whoever asks."""
        authorization = authorization_of(request.headers)
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
        *(Route(path, partial(front.answer, path), methods=["POST"]) for path in Endpoint),
        Route("/v1/responses/{name}", front.responses.one, methods=["GET", "DELETE"]),
        Route("/v1/responses/{name}/cancel", front.responses.cancel, methods=["POST"]),
        Route("/v1/models", front.models),
        Route("/v1/models/{name:path}", front.models),
        Route("/health", front.ready),
        Route("/health/ready", front.ready),
        Route("/health/live", front.live),
        Route("/metrics", front.metrics),
        Route("/ping", front.ready, methods=["GET", "POST"]),
        *FACTS,
        *PAGE_ROUTES,
    ]
    most = spec.max_body_bytes or most_body_bytes(spec.files.limits.max_seq_len)
    gate = Middleware(AccessGate, keys=spec.tenants.keys, max_body_bytes=most)
    app = Starlette(
        routes=routes,
        middleware=[*cors(spec.cors_origins), gate],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # ShortPaths has taken them off: it would lead here again
    operations = {path.value: path.operation for path in Endpoint if path.operation}
    gated = HostGate(app, spec.hosts)
    logged = AccessLog(gated, spec.tenants, spec.tracing, operations)
    return ShortPaths(RequestIds(logged))
