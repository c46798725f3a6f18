"""What the backends' Options share; each of their fields tells its option of `nemotrt build`."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from nemotrt.commandline.kinds import COUNT
from nemotrt.commandline.options import option

TpSize = Literal[1, 2, 4, 8]  # GPUs that may share a model
TP_SIZES: tuple[int, ...] = get_args(TpSize)


@dataclass(frozen=True, slots=True)
class NoOptions:
    """The options of a backend that has none."""


def tp_size() -> Any:
    """Return the field for the GPUs that share a model."""
    return option(1, "GPUs that share the model.", "--tp-size", kind=COUNT)
