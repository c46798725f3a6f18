"""What a user may choose of a native engine."""

from dataclasses import dataclass
from enum import StrEnum

from nemotrt.commandline.kinds import Words
from nemotrt.commandline.options import option
from nemotrt.engines.model.numerics import FLOATS, NumberFormat


class StateFormat(StrEnum):
    """The type of a state's elements, in the program's words."""

    FLOAT32 = NumberFormat.FP32.word
    FLOAT16 = NumberFormat.FP16.word  # for a scan's state only

    @property
    def number(self) -> NumberFormat:
        """The format of one element, whose value is the users' word."""
        return next(item for item in FLOATS if item.word == self)


@dataclass(frozen=True, slots=True)
class NativeOptions:
    """`ssm_state` is how the state of a sequence's scans is kept."""

    ssm_state: StateFormat = option(
        StateFormat.FLOAT32,
        f"the Mamba state; {NumberFormat.FP16} halves its memory and traffic, at an error.",
        kind=Words(
            {item.number.value: item for item in StateFormat},
            old={item.value: item for item in StateFormat},
        ),
        unset=StateFormat.FLOAT32.number.value,
    )
