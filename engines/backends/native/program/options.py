"""What a user may choose of a native engine."""

from dataclasses import dataclass
from enum import StrEnum

from nemotrt.commandline import option


class StateFormat(StrEnum):
    """The type of a state's elements, in the order of `StateFormat` in step/program.h."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"  # for a scan's state only


@dataclass(frozen=True, slots=True)
class NativeOptions:
    """`ssm_state` is how the state of a sequence's scans is kept."""

    ssm_state: StateFormat = option(
        StateFormat.FLOAT32, "the Mamba state; float16 halves its memory and traffic, at an error."
    )
