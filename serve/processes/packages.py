"""Checks that the packages of the `serve` extra are there, before anything starts."""

from importlib.util import find_spec

from nemotrt import needs
from nemotrt.errors import EnvironmentUnfitError

ALWAYS = tuple(
    name
    for package in (needs.HTTPTOOLS, needs.PROMETHEUS, needs.STARLETTE, needs.UVICORN)
    for name in package.modules
)
WITH_TRITON = needs.TRITONCLIENT.modules


def check_packages(*, use_triton: bool) -> None:
    """Raise EnvironmentUnfitError with the install line where a package is missing."""
    wanted = ALWAYS + (WITH_TRITON if use_triton else ())
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise EnvironmentUnfitError(
            f"serving needs {', '.join(missing)}; install it with: {needs.install('serve')}"
        )
