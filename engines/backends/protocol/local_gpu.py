"""The GPU of this machine, as an engine that is to be opened sees it."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.needs import CURE_DRIVER

if TYPE_CHECKING:
    from nemotrt.engines.artefact.manifest import Manifest


class LocalGpu(NamedTuple):
    """A GPU of this machine: its compute capability, such as "9.0", and NVML's name of it."""

    compute_capability: str
    product_name: str


def local_gpu() -> LocalGpu | None:
    """Return the first GPU that CUDA sees; None without.

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
        return LocalGpu(f"{major}.{minor}", _product_name(device))
    except pynvml.NVMLError:
        return None
    finally:
        with suppress(pynvml.NVMLError):  # nothing is asked any more
            pynvml.nvmlShutdown()


def _product_name(device: Any) -> str:
    """Return the name of a device; empty where NVML does not tell."""
    import pynvml

    try:
        return str(pynvml.nvmlDeviceGetName(device))
    except pynvml.NVMLError:
        return ""


def local_compute_capability() -> str | None:
    """Return the compute capability of the first GPU that CUDA sees; None without."""
    found = local_gpu()
    return None if found is None else found.compute_capability


def check_gpu(folder: Path, manifest: "Manifest", found: str | None) -> None:
    """Raise EnvironmentUnfitError where the GPU found, of that compute capability, is none."""
    if found is None:
        raise EnvironmentUnfitError(
            f"{folder} is built for {manifest.gpu}, and this machine has no NVIDIA GPU. "
            f"{CURE_DRIVER} For the CPU, build one without --gpu."
        )


def check_same_gpu(folder: Path, manifest: "Manifest", found: str | None) -> None:
    """Raise EnvironmentUnfitError unless the engine was compiled for the GPU found."""
    check_gpu(folder, manifest, found)
    if found != manifest.compute_capability:
        raise EnvironmentUnfitError(
            f"{folder} was compiled for {manifest.gpu} (compute capability "
            f"{manifest.compute_capability}); this machine's GPU has {found}. Build it again."
        )
