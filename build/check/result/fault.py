"""What goes wrong in a check: the stage, what was seen, and the next step."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError, NemotrtError


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


COMPUTING = (Stage.LAUNCH, Stage.STEP)  # where a call that fails is the computation's own
FULL = (errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)


class Outcome(StrEnum):
    """What a check says of this machine; only WRONG is of a computation."""

    RIGHT = "computes right"
    WRONG = "computes wrong"  # a result beyond its bound, or a computation that failed
    UNTRIED = "could not be tried"  # a file is missing, damaged or another; kernels don't compile
    LACKING = "lacks something"  # a GPU, driver, package, memory or disk space

    @property
    def exit_code(self) -> int:
        """What the command ends with: of several outcomes, the least that is not 0."""
        codes = {
            Outcome.RIGHT: 0,
            Outcome.WRONG: NemotrtError.exit_code,
            Outcome.UNTRIED: ConfigError.exit_code,
            Outcome.LACKING: EnvironmentUnfitError.exit_code,
        }
        return codes[self]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that does not hold; `what` or `cure` has the next step, unless it is WRONG."""

    stage: Stage
    what: str
    outcome: Outcome
    cure: str = ""

    @property
    def is_lacking(self) -> bool:
        """Whether this machine lacks something."""
        return self.outcome is Outcome.LACKING

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
    """Turn an error into the fault of a stage: of our tree, or of cuda-python, files, memory.

    Raises:
        CheckFaultError: the block failed.
    """
    try:
        yield
    except CheckFaultError:
        raise
    except (NemotrtError, RuntimeError, OSError, MemoryError) as error:
        text = error.message if isinstance(error, NemotrtError) else str(error)
        outcome = Outcome.LACKING if cure else _outcome(where, error)
        what = text or "there is too little free memory."
        raise CheckFaultError(Fault(where, what, outcome, cure)) from error


def _outcome(where: Stage, error: Exception) -> Outcome:
    """Return what an error says of this machine."""
    is_full = isinstance(error, OSError) and error.errno in FULL
    if is_full or isinstance(error, EnvironmentUnfitError | MemoryError):
        return Outcome.LACKING
    if where in COMPUTING and not isinstance(error, ArtefactError | OSError):
        return Outcome.WRONG
    return Outcome.UNTRIED
