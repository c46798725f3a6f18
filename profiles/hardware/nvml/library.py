"""NVML, opened and closed; nothing else in the package calls it without a session."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from nemotrt import needs
from nemotrt.errors import EnvironmentUnfitError

# What nvmlInit says on a machine without an NVIDIA GPU or driver.
REASONS = {
    "NVMLError_LibraryNotFound": "the NVIDIA driver is not installed (no libnvidia-ml.so.1)",
    "NVMLError_DriverNotLoaded": "the NVIDIA driver is not loaded; `nvidia-smi` says more",
    "NVMLError_NoPermission": "this user may not talk to the NVIDIA driver",
    "NVMLError_LibRmVersionMismatch": "driver and library differ in version: restart the machine",
}


class NvmlAbsentError(EnvironmentUnfitError):
    """NVML can't be had here, for `reason`."""

    def __init__(self, reason: str) -> None:
        """Say that there are no GPU figures."""
        super().__init__(f"No GPU figures: {reason}.")
        self.reason = reason


@contextmanager
def nvml_session() -> Iterator[Any]:
    """Yield the initialized `pynvml` module.

    Raises:
        NvmlAbsentError: there is no NVIDIA GPU or driver to talk to.
    """
    try:
        import pynvml
    except ImportError as error:
        raise NvmlAbsentError(f"nvidia-ml-py is not installed: {needs.NVML.cure}") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        reason = REASONS.get(type(error).__name__, f"NVML does not start: {error}")
        raise NvmlAbsentError(reason) from error
    try:
        yield pynvml
    finally:
        with suppress(pynvml.NVMLError):  # nothing is asked any more
            pynvml.nvmlShutdown()
