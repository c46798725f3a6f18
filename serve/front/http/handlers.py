"""What is answered where an endpoint raises; the line of its request has the error's code."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from nemotrt.serve.front.http.access_log import CLIENT_CLOSED_REQUEST
from nemotrt.serve.front.http.api_error import ApiError, note_error
from nemotrt.serve.front.http.event_stream import ClientGoneError


async def _api_error(request: Request, error: ApiError) -> Response:
    note_error(request.scope, error)
    return error.response(request.url.path)


async def _http_error(request: Request, error: HTTPException) -> Response:
    told = ApiError(error.status_code, error.detail, code="http_error")
    response = await _api_error(request, told)
    response.headers.update(error.headers or {})
    return response


async def _client_gone(request: Request, error: ClientGoneError) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _fault(request: Request, error: Exception) -> Response:
    """Answer for a bug of ours; the server logs its place."""
    fault = ApiError(500, "the server has a fault; its log says more.", code="fault")
    return await _api_error(request, fault)


HANDLERS: dict[Any, Any] = {
    ApiError: _api_error,
    HTTPException: _http_error,
    ClientGoneError: _client_gone,
    ClientDisconnect: _client_gone,
    Exception: _fault,
}
