"""What a user may choose of a native engine."""

from dataclasses import dataclass
from enum import StrEnum

from nemotrt.commandline import option
from nemotrt.engines.model.numerics import FLOATS, NumberFormat


class StateFormat(StrEnum):
    """The type of a state's elements."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"  # for a scan's state only

    @property
    def number(self) -> NumberFormat:
        """The format of one element."""
        return next(item for item in FLOATS if item.word == self)


@dataclass(frozen=True, slots=True)
class NativeOptions:
    """`ssm_state` is how the state of a sequence's scans is kept."""

    ssm_state: StateFormat = option(
        StateFormat.FLOAT32, "the Mamba state; float16 halves its memory and traffic, at an error."
    )
