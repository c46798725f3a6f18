"""Prints what a pybind11 module offers as JSON; runs in a process of its own.

usage: python dump.py MODULE
"""

import inspect
import json
import sys
from importlib import import_module
from typing import Any

KEPT = ("__init__", "__getitem__", "__len__", "__iter__", "__setitem__", "__members__")


def member(kind: Any, name: str) -> dict[str, Any]:
    """Return what a class's member is: a class, a method, a property, or a value of a type."""
    static = inspect.getattr_static(kind, name)
    if isinstance(static, property):
        document = getattr(static.fget, "__doc__", None) or ""
        return {"property": document, "is_settable": static.fset is not None}
    value = getattr(kind, name)
    if inspect.isclass(value):
        return {"class": of_class(value)}
    if callable(value):
        return {"function": signature_text(name, value)}
    return {"value": type(value).__qualname__}


def signature_text(name: str, function: Any) -> str:
    """Return the signature that Python or Cython knows, or what pybind11 wrote."""
    try:
        return f"{name}{inspect.signature(function)}"
    except (TypeError, ValueError):
        return function.__doc__ or ""


def of_class(kind: Any) -> dict[str, Any]:
    """Return a class's bases and members."""
    names = [name for name in dir(kind) if name in KEPT or not name.startswith("_")]
    bases = [base.__qualname__ for base in kind.__mro__[1:]]
    return {"bases": bases, "members": {name: member(kind, name) for name in names}}


if __name__ == "__main__":
    module = import_module(sys.argv[1])
    names = [name for name in dir(module) if not name.startswith("__")]
    print(json.dumps({"bases": [], "members": {name: member(module, name) for name in names}}))
