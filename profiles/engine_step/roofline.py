"""How long work takes at least on a machine of given limits, and what it is limited by."""

from nemotrt.engines.backends.native.library.machine_limits import MachineLimits
from nemotrt.profiles.engine_step.work import Work


def least_seconds(work: Work, limits: MachineLimits) -> tuple[float, str]:
    """Return (seconds, "memory" or "arithmetic"): moving and computing overlap at best."""
    memory_s = work.read_bytes / limits.read_bytes_per_s
    memory_s += work.update_bytes / limits.update_bytes_per_s
    arithmetic_s = work.float_ops / limits.float_ops_per_s
    arithmetic_s += work.int16_ops / limits.int16_ops_per_s
    return (memory_s, "memory") if memory_s >= arithmetic_s else (arithmetic_s, "arithmetic")
