"""Which GPUs and which versions of TensorRT do, as far as that is known without either."""

from nemotrt.engines.backends.protocol.compute_capability import capability_number
from nemotrt.needs import TENSORRT, install, numbers

# Source: tried with tensorrt-rtx 1.7.1.116, 2026-11: these compile without a driver; 9.0 is not
# among its targets.
AHEAD_OF_TIME = {"8.0": "SM80", "8.6": "SM86", "8.9": "SM89"}
LEAST = "8.0"  # Source: CUDA C++ Programming Guide, compute capabilities: bfloat16
PLUGIN_LEAST = "10.16"  # 10.15's binding reads a plugin's text wrong (tests/engines/bindings)


def unfit(version: str, *, has_plugins: bool) -> str:
    """Return why an ordinary TensorRT does not do, and what to install; "" where it does."""
    found = numbers(version)
    if found < numbers(TENSORRT.least):
        line = install("tensorrt")
        return f"has no KV cache update; take {TENSORRT.least} or later: {line}"
    if has_plugins and found < numbers(PLUGIN_LEAST):
        line = install("tensorrt", f"tensorrt>={PLUGIN_LEAST}")
        return f"reads plugins' texts wrong under NumPy 2; take {PLUGIN_LEAST} or later: {line}"
    if found >= numbers(TENSORRT.below):
        line = install("tensorrt")
        return f"is newer than what was read; take one before {TENSORRT.below}: {line}"
    return ""


def not_ahead_of_time(compute_capability: str) -> str:
    """Return why no plan compiled ahead of time runs on a GPU; "" where one does."""
    if compute_capability in AHEAD_OF_TIME:
        return ""
    return (
        f"TensorRT for RTX compiles for {', '.join(AHEAD_OF_TIME)}, not {compute_capability}: use "
        f"ordinary TensorRT on this host: {install('tensorrt')}"
    )


def too_old(compute_capability: str) -> str:
    """Return why our graphs and kernels don't run on a GPU; "" where they do."""
    if capability_number(compute_capability) >= capability_number(LEAST):
        return ""
    return f"compute capability {compute_capability} is below {LEAST}, the first with bfloat16"
