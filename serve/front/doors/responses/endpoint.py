"""What of /v1/responses needs the kept responses: GET, DELETE, to go on from one, to keep one."""

from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from nemotrt.serve.front.doors.responses.call import ResponseCall
from nemotrt.serve.front.doors.responses.kept import Kept, KeptResponses
from nemotrt.serve.front.http.access import authorization_of
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.http.tenants import Tenants


class ResponsesEndpoint:
    """The kept responses of whoever asks."""

    def __init__(self, tenants: Tenants, max_bytes: int) -> None:
        """Keep none yet, and `max_bytes` at most."""
        self._tenants = tenants
        self._kept = KeptResponses(max_bytes)

    def earlier(self, request: Request, name: str) -> bytes:
        """Return the items of the response that a request goes on from.

        Raises:
            ApiError: there is none of that name, of the same API key.
        """
        kept = self._kept.get(self._owner(request), name)
        if kept is None:
            raise ApiError(
                400,
                f"{self._missing(name)} Send the whole conversation as input instead.",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        return kept.items

    def keep(self, request: Request, call: ResponseCall) -> None:
        """Have the response of a call kept, if it is to be.

        Raises:
            ApiError: it must be, and nothing is kept.
        """
        if self._kept.max_bytes > 0:
            put = partial(self._kept.put, self._owner(request))
            call.keep_by(put)
        elif call.must_keep:
            told = "nothing is stored here (--stored-responses-mib 0); leave store out."
            raise ApiError(400, told, param="store")

    async def one(self, request: Request) -> Response:
        """Answer GET and DELETE /v1/responses/NAME."""
        return await (self.delete if request.method == "DELETE" else self.get)(request)

    async def get(self, request: Request) -> Response:
        """Answer GET /v1/responses/NAME."""
        if request.query_params.get("stream") == "true":
            raise ApiError(400, "a kept response is not streamed again.", param="stream")
        return Response(self._found(request).response, media_type="application/json")

    async def delete(self, request: Request) -> Response:
        """Answer DELETE /v1/responses/NAME."""
        name = request.path_params["name"]
        if not self._kept.drop(self._owner(request), name):
            raise ApiError(404, self._missing(name), code="response_not_found")
        return JSONResponse({"id": name, "object": "response", "deleted": True})

    async def cancel(self, request: Request) -> Response:
        """Answer POST /v1/responses/NAME/cancel: what is kept has ended."""
        self._found(request)
        raise ApiError(
            400,
            "Cannot cancel a synchronous response: background is not supported; one that is still "
            "being made ends when its client hangs up.",
        )

    def _found(self, request: Request) -> Kept:
        name = request.path_params["name"]
        kept = self._kept.get(self._owner(request), name)
        if kept is None:
            raise ApiError(404, self._missing(name), code="response_not_found")
        return kept

    def _owner(self, request: Request) -> bytes:
        return self._tenants.owner(authorization_of(request.headers))

    def _missing(self, name: str) -> str:
        return (
            f"Response with id {name[:80]!r} not found: none had that id, or it was not to be "
            "stored, was deleted, gave way to newer ones, or the server has started again."
        )
