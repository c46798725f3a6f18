"""What opening a plan asks of a machine: its GPU, the TensorRT that compiled it, cuda-python."""

import ctypes
from pathlib import Path

from nemotrt.engines.artefact.manifest import Manifest
from nemotrt.engines.backends.protocol.local_gpu import check_same_gpu, local_compute_capability
from nemotrt.engines.backends.tensorrt.compile.flavour import flavours
from nemotrt.engines.backends.tensorrt.device.cuda import cuda_api
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.needs import CURE_DRIVER, Need, old_driver

DRIVER_LIBRARY = "libcuda.so.1"
CUDA_13 = 13000  # Source: cuda.h, cuDriverGetVersion: 1000 for each major version, 10 a minor one


def needs_here(folder: Path, manifest: Manifest) -> tuple[Need, ...]:
    """Return them in the order in which opening asks."""
    return (
        Need("GPU", lambda: check_same_gpu(folder, manifest, local_compute_capability())),
        Need("TensorRT", lambda: plan_module(manifest)),
        Need("cuda-python", cuda_api),
        Need("CUDA driver", check_driver),
    )


def check_driver() -> None:
    """Raise EnvironmentUnfitError where the driver's library can't be loaded, or is too old."""
    try:
        library = ctypes.CDLL(DRIVER_LIBRARY)
    except OSError as error:
        raise EnvironmentUnfitError(f"{DRIVER_LIBRARY} is not here. {CURE_DRIVER}") from error
    version = ctypes.c_int()
    library["cuDriverGetVersion"](ctypes.byref(version))  # of the driver, not of cuda-python
    if version.value < CUDA_13:
        told = f"(CUDA {version.value // 1000}.{version.value % 1000 // 10})"
        raise EnvironmentUnfitError(f"{old_driver(told)}.")


def plan_module(manifest: Manifest) -> str:
    """Return the Python module of the TensorRT that compiled the plan; it must be here."""
    flavour = next(x for x in flavours() if x.name in manifest.tools)
    wanted = manifest.tools[flavour.name]
    if {package.installed() for package in flavour.packages} != {wanted}:
        raise EnvironmentUnfitError(
            f"the plan needs {flavour.name} {wanted}, which compiled it: {flavour.install(wanted)}."
        )
    return flavour.module
