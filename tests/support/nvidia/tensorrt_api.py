"""The API of ordinary TensorRT by version, over a library of nine functions that do nothing.

The `-bindings` wheels are real and import their libraries at once; of these they take nine C
functions. With those in place every class, method, enum and signature can be read, and what lies
in Python alone (plugins' fields, shapes, descriptions) works. Nothing computes.
"""

import fcntl
import os
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

from support.nvidia.api import Api
from support.nvidia.reading import kept_api
from support.nvidia.wheels import cache_folder, unpacked

PACKAGE = "tensorrt-cu13-bindings"
MODULE = "tensorrt_bindings"
RTX_PACKAGE, RTX_MODULE = "tensorrt-rtx-cu13-bindings", "tensorrt_rtx_bindings"
# Every version that the index has within the bounds of the extra `tensorrt`.
VERSIONS = (
    *("10.15.1.29", "10.16.0.72", "10.16.1.11"),
    *("11.0.0.114", "11.1.0.106", "11.2.1.2", "11.3.0.99", "11.4.0.106"),
)
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
# Source: `nm -D --undefined-only` over tensorrt.so of each of VERSIONS.
NOTHING = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL"),
    *("createInferRuntime_INTERNAL", "createNvOnnxParserRefitter_INTERNAL"),
    *("createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry", "getPluginRegistry"),
    *("initLibNvInferPlugins", "getNvOnnxParserVersion"),
)


def environment(version: str) -> dict[str, str]:
    """Return the environment in which `import tensorrt_bindings` is that version's."""
    more = {
        "LD_LIBRARY_PATH": str(_libraries(version.partition(".")[0])),
        "PYTHONPATH": str(unpacked(PACKAGE, version)),
    }
    return os.environ | more


@cache
def tensorrt_api(version: str) -> Api:
    """Return a version's API; it is read once and kept."""
    return kept_api(MODULE, f"{PACKAGE}-{version}", lambda: environment(version))


@cache
def rtx_api() -> Api:
    """Return the API of the TensorRT for RTX that is installed."""
    installed = version(RTX_PACKAGE)
    return kept_api(RTX_MODULE, f"{RTX_PACKAGE}-{installed}", lambda: dict(os.environ))


def _libraries(major: str) -> Path:
    """Return a folder with a major's three libraries, which have the nine functions."""
    folder = cache_folder() / f"nine-functions-{major}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in LIBRARIES:
            library = folder / f"lib{name}.so.{major}"
            if library.is_file():
                continue
            code = "".join(f"void *{function}(void) {{ return 0; }}\n" for function in NOTHING)
            partial = folder / f".{name}"
            command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-xc", "-"]
            subprocess.run([*command, "-o", partial], input=code.encode(), check=True)
            partial.rename(library)
    return folder
