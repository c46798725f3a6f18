"""Source: 1.2 tensorrt_llm/module.py, parameter.py."""

from collections.abc import Iterator
from typing import Any

import numpy as np


class Parameter:
    def __init__(self, shape, dtype=None):
        self.shape, self.dtype = tuple(shape), dtype
        self._value: np.ndarray | None = None

    @property
    def value(self) -> Any:
        from .functional import of

        assert self._value is not None
        return of(self._value)

    def load(self, value: np.ndarray) -> None:
        self._value = value


class Module:
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def children(self) -> Iterator[tuple[str, "Module"]]:
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, value
        for name, child in self.children():
            yield from child.named_parameters(f"{prefix}{name}.")

    def named_modules_with_parent(self, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
        for name, child in list(self.children()):
            yield prefix + name, child, self
            yield from child.named_modules_with_parent(f"{prefix}{name}.")


class ModuleList(Module):
    def __init__(self, modules):
        for index, module in enumerate(modules):
            setattr(self, str(index), module)

    def __iter__(self):
        return (child for _, child in self.children())
