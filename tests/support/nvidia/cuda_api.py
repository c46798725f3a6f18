"""The APIs of cuda.bindings and pynvml, of the first and the last version within our bounds."""

import os
from functools import cache

from support.nvidia.api import Api
from support.nvidia.reading import kept_api
from support.nvidia.wheels import unpacked

VERSIONS = ("13.0.0", "13.5.0")
PATHFINDER = "1.9.1"  # which cuda.bindings imports
MODULES = ("runtime", "driver", "nvrtc")
NVML_VERSIONS = ("12.570.86", "13.615.71")


@cache
def cuda_apis(version: str) -> dict[str, Api]:
    """Return the API of each module of cuda.bindings; no driver is needed to read it."""

    def environment() -> dict[str, str]:
        folders = [unpacked("cuda-bindings", version), unpacked("cuda-pathfinder", PATHFINDER)]
        return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}

    return {
        name: kept_api(f"cuda.bindings.{name}", f"cuda-bindings-{version}-{name}", environment)
        for name in MODULES
    }


@cache
def nvml_api(version: str) -> Api:
    """Return the API of nvidia-ml-py's module."""
    return kept_api(
        "pynvml",
        f"nvidia-ml-py-{version}",
        lambda: os.environ | {"PYTHONPATH": str(unpacked("nvidia-ml-py", version))},
    )
