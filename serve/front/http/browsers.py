"""What keeps other sites' pages in a browser from using a server on this machine."""

from starlette.datastructures import Headers

from nemotrt.serve.front.http.api_error import ApiError

JSON = "application/json"


def check_json(headers: Headers) -> None:
    """Raise ApiError for a body that is not said to be JSON.

    A page of another site can send no JSON unasked, but any text as a form or without a type.
    """
    told = headers.get("content-type", "")
    if told.partition(";")[0].strip().lower() != JSON:
        found = f"got {told[:80]!r}" if told else "it has none"
        raise ApiError(
            415,
            f"the body's Content-Type must be {JSON}, {found} (curl: --json).",
            code="unsupported_media_type",
        )
