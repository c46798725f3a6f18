"""Which GPUs are watched, as options of the command line."""

from dataclasses import dataclass

from nemotrt.commandline.kinds import FloatRange
from nemotrt.commandline.options import option


@dataclass(frozen=True, slots=True)
class GpuChoice:
    """Which GPUs and how often; GPUs that are named must be there, unnamed ones may be missing."""

    names: tuple[str, ...] = option((), "Index, INDEX:MIG or UUID.", "--gpu", unset="all")
    rate_hz: float = option(
        10.0, "Samples per second.", "--gpu-rate-hz", old=("--rate-hz",), kind=FloatRange(0.1, 100)
    )
