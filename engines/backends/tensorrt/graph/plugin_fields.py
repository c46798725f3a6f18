"""The fields of the Mamba plugins: what a graph's node says, and a plan keeps."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

NAMESPACE = "nemotrt"
VERSION = "1"
KINDS = {int: "INT32", float: "FLOAT32", str: "CHAR"}  # members of TensorRT's PluginFieldType


@dataclass(frozen=True, slots=True)
class PluginFields:
    """Named values, each an int, a float or a text; subclasses say which."""

    op: ClassVar[str]
    kernels: str  # the key of the compiled kernels

    @classmethod
    def kinds(cls) -> dict[str, str]:
        """Return each field's name and the name of its PluginFieldType."""
        return {name: KINDS[kind] for name, kind in _types(cls).items()}

    @classmethod
    def read(cls, found: Iterable[Any]) -> Self:
        """Return the values of a collection of PluginField.

        Raises:
            ValueError: a field is missing, unknown, or not one value of its type.
        """
        known = _types(cls)
        values: dict[str, Any] = {}
        for item in found:
            if item.name not in known:
                raise ValueError(f"{cls.op} has no field {item.name!r}; it has {', '.join(known)}.")
            values[item.name] = _value(cls.op, item, known[item.name])
        if missing := sorted(set(known) - set(values)):
            raise ValueError(f"{cls.op} needs the fields {', '.join(missing)}.")
        return cls(**values)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return each field's value as the array that a PluginField points to."""
        found = {}
        for field in fields(self):
            value = getattr(self, field.name)
            found[field.name] = (
                np.frombuffer(value.encode(), np.int8)
                if isinstance(value, str)
                else np.array([value], np.float32 if isinstance(value, float) else np.int32)
            )
        return found


@dataclass(frozen=True, slots=True)
class CausalConvFields(PluginFields):
    """Of the causal convolution's update."""

    op: ClassVar[str] = "CausalConv"
    channels: int
    conv_kernel: int
    width: int  # columns of in_proj's result


@dataclass(frozen=True, slots=True)
class SsdScanFields(PluginFields):
    """Of the state-space scan."""

    op: ClassVar[str] = "SsdScan"
    num_heads: int
    head_dim: int
    state_size: int
    num_groups: int
    width: int  # columns of in_proj's result
    decode_rows: int
    dt_min: float
    dt_max: float


def _types(cls: type[PluginFields]) -> dict[str, type]:
    """Return each field's type by name."""
    return {field.name: field.type for field in fields(cls) if isinstance(field.type, type)}


def _value(op: str, item: Any, kind: type) -> int | float | str:
    """Return one field's value."""
    raw = np.asarray(item.data)
    if kind is str:
        return raw.tobytes().rstrip(b"\0").decode()
    if item.type.name != KINDS[kind] or raw.size != 1:
        raise ValueError(f"{op}'s field {item.name} must be one {KINDS[kind]}.")
    return float(raw.reshape(-1)[0]) if kind is float else int(raw.reshape(-1)[0])
