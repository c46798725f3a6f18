"""The routes of the front, below its middleware."""

from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp


def routes_of(app: ASGIApp) -> list[Route]:
    """Return every route with a path of its own."""
    inner: Any = app
    while not isinstance(inner, Starlette):
        inner = getattr(inner, "app", None) or inner._app
    return [route for route in inner.routes if isinstance(route, Route)]
