"""What the backends' Options share; each of their fields tells its option of `nemotrt build`."""

from dataclasses import dataclass
from typing import Any

from nemotrt.commandline.kinds import COUNT
from nemotrt.commandline.options import option

TP_SIZES = (1, 2, 4, 8)  # GPUs that may share a model


@dataclass(frozen=True, slots=True)
class NoOptions:
    """The options of a backend that has none."""


def tp_size() -> Any:
    """Return the field for the GPUs that share a model."""
    return option(1, "GPUs that share the model.", "--tp-size", kind=COUNT)
