"""Checkpoint in, quantized checkpoint out. As `nemotrt.quantize` it can be called, see `call`."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nemotrt.quantize.writing.writer import QuantizeResult


class _Callable(ModuleType):
    """A module that is the function of its name too: both are spelled `nemotrt.quantize`."""

    def __call__(self, *args: Any, **more: Any) -> "QuantizeResult":
        from nemotrt.quantize.call import quantize

        return quantize(*args, **more)


sys.modules[__name__].__class__ = _Callable
