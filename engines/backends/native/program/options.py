"""What a user may choose of a native engine."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from nemotrt.commandline.kinds import Words
from nemotrt.commandline.options import option
from nemotrt.engines.model.numerics import NumberFormat

if TYPE_CHECKING:
    import numpy as np


class StateFormat(StrEnum):
    """The type of a state's elements, in the program's words."""

    FLOAT32 = NumberFormat.FP32.word
    FLOAT16 = NumberFormat.FP16.word  # for a scan's state only
    BFLOAT16 = NumberFormat.BF16.word  # for caches only
    INT8 = NumberFormat.INT8.word  # for caches only: codes of a row, and its scale

    @property
    def number(self) -> NumberFormat:
        """The format of one element, whose value is the users' word."""
        return next(item for item in NumberFormat if item.word == self)

    @property
    def storage(self) -> "np.dtype[Any]":
        """The type of an array of elements; numpy has none for bfloat16's."""
        import numpy as np

        return np.dtype(np.uint16 if self is StateFormat.BFLOAT16 else self.value)


SSM_FORMATS = (StateFormat.FLOAT32, StateFormat.FLOAT16)
KV_FORMATS = (StateFormat.FLOAT32, StateFormat.BFLOAT16, StateFormat.INT8)


@dataclass(frozen=True, slots=True)
class NativeOptions:
    """How the state of a sequence's scans is kept, and its caches of keys and values."""

    ssm_state: StateFormat = option(
        StateFormat.FLOAT32,
        f"the Mamba state; {NumberFormat.FP16} halves its memory and traffic and adds an error.",
        kind=Words(
            {item.number.value: item for item in SSM_FORMATS},
            old={item.value: item for item in SSM_FORMATS},
        ),
        unset=StateFormat.FLOAT32.number.value,
    )
    kv_cache: StateFormat = option(
        StateFormat.FLOAT32,
        f"the KV cache; {NumberFormat.BF16} halves its memory and {NumberFormat.INT8} quarters it, "
        "and adds an error.",
        kind=Words({item.number.value: item for item in KV_FORMATS}),
        unset=StateFormat.FLOAT32.number.value,
    )
