"""Typed doors to numba: compiled functions that drop the GIL and are cached on disk."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

numba: Any = import_module("numba")
F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Return `function` compiled on its first call; division by zero gives inf, as in numpy.

    The machine code is cached beside the module (or in the user's cache folder if that is
    read-only), so only the first run on a machine compiles, and nobody needs a C compiler.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        result: F = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that can be written: compile in each run
        result = numba.njit(**options)(function)
    return result


def inlined(function: F) -> F:
    """Return `function` marked as callable from compiled functions."""
    result: F = numba.extending.register_jitable(function)
    return result


def specialised(function: Callable[..., Any]) -> Callable[[F], F]:
    """Return a decorator: the decorated function picks `function`'s body from the types."""
    decorator: Callable[[F], F] = numba.extending.overload(function)
    return decorator
