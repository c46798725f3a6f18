"""What goes wrong in a check: the stage, what was seen, and the next step."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from nemotrt.errors import EnvironmentUnfitError, NemotrtError


class Stage(StrEnum):
    """Where a check is; a fault names it."""

    BINDINGS = "cuda-python"
    DRIVER = "driver"
    GPU = "GPU"
    COMPILER = "compiler"
    COMPILE = "compile"
    LOAD = "load"
    MEMORY = "memory"
    LAUNCH = "launch"
    COMPARE = "compare"
    BUILD = "build"
    OPEN = "open"
    STEP = "step"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that does not hold.

    `is_lacking`: this machine lacks something, and `what` or `cure` has the next step; else
    something computes wrong, which the maintainers must see.
    """

    stage: Stage
    what: str
    cure: str = ""
    is_lacking: bool = False

    def __str__(self) -> str:
        """Return the line for a person."""
        return f"{self.stage}: {self.what}" + (f" {self.cure}" if self.cure else "")


class CheckFaultError(NemotrtError):
    """Ends what can't go on after a fault."""

    def __init__(self, fault: Fault) -> None:
        """Keep the fault."""
        super().__init__(str(fault))
        self.fault = fault


@contextmanager
def stage(where: Stage, cure: str = "") -> Iterator[None]:
    """Turn an error of our tree into the fault of a stage; RuntimeError is cuda-python's own.

    Raises:
        CheckFaultError: the block failed.
    """
    try:
        yield
    except CheckFaultError:
        raise
    except (NemotrtError, RuntimeError) as error:
        text = error.message if isinstance(error, NemotrtError) else str(error)
        is_lacking = bool(cure) or isinstance(error, EnvironmentUnfitError)
        raise CheckFaultError(Fault(where, text, cure, is_lacking)) from error
