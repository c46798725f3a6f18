"""What a server says of itself, whatever it serves: its version, its document, what it is not."""

from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from nemotrt.serve.front.doors.docs_page import HEADERS, docs_page
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.schema.openapi import openapi_bytes

NOT_SERVED = (  # of embedding models and rerankers, at OpenAI, Cohere, Jina and vLLM
    "/v1/embeddings",
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
    "/v1/score",
    "/score",
    "/pooling",
    "/classify",
)


async def _openapi(request: Request) -> Response:
    return Response(openapi_bytes(), media_type="application/json")


async def _docs(request: Request) -> Response:
    return HTMLResponse(docs_page(), headers=HEADERS)


async def _version(request: Request) -> Response:
    return JSONResponse({"version": version("nemotrt")})


async def _refuse(request: Request) -> Response:
    """Answer what clients ask of models of another kind."""
    raise ApiError(
        400,
        "the model here writes text; it has no embeddings, scores or ranks. Ask a server of an "
        "embedding model or a reranker.",
        code="not_supported",
    )


FACTS = [
    Route("/openapi.json", _openapi),
    Route("/docs", _docs),
    Route("/version", _version),
    *(Route(path, _refuse, methods=["POST"]) for path in NOT_SERVED),
]
