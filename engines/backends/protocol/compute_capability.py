"""NVIDIA's compute capabilities, such as "8.6", as numbers; which compute in FP8, which is here."""

import os
from contextlib import suppress

FIRST_FP8 = "8.9"


def capability_number(compute_capability: str) -> tuple[int, int]:
    """Return "8.9" as (8, 9), which compares as it should."""
    major, _, minor = compute_capability.partition(".")
    return int(major), int(minor)


def has_fp8(compute_capability: str | None) -> bool:
    """Whether the GPU computes in FP8; what is no GPU does not."""
    if compute_capability is None:
        return False
    return capability_number(compute_capability) >= capability_number(FIRST_FP8)


def local_compute_capability() -> str | None:
    """Return the compute capability of the first GPU that CUDA sees, such as "9.0"; None without.

    CUDA_VISIBLE_DEVICES is read as CUDA reads it, numbers in the order of the PCI bus.
    """
    import pynvml

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if not visible or visible.startswith("-"):
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        if visible.isdecimal():
            device = pynvml.nvmlDeviceGetHandleByIndex(int(visible))
        else:
            device = pynvml.nvmlDeviceGetHandleByUUID(visible)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(device)
    except pynvml.NVMLError:
        return None
    finally:
        with suppress(pynvml.NVMLError):  # nothing is asked any more
            pynvml.nvmlShutdown()
    return f"{major}.{minor}"
