"""The stand-ins for TensorRT and CUDA have the real APIs' names and parameters."""

import inspect
import re
from typing import Any

import pytest

from support import cuda_stand_in
from support import tensorrt_stand_in as stand_in

KINDS = (
    stand_in.Runtime,
    stand_in.ICudaEngine,
    stand_in.IExecutionContext,
    stand_in.IRuntimeConfig,
    stand_in.IRuntimeCache,
)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for kind in KINDS
        for name in vars(kind)
        if not name.startswith("_") and name != "HEADER"
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_stand_in_speaks_tensorrt(kind: Any, name: str) -> None:
    """Names, and names of parameters, are those of the installed binding."""
    trt = pytest.importorskip("tensorrt_rtx_bindings")
    real = getattr(getattr(trt, kind.__name__), name)
    ours = getattr(kind, name)
    if not callable(ours):
        assert not callable(real)
        return
    documented = re.sub(r"<[^>]*>", "", real.__doc__)  # a default value
    signatures = re.findall(rf"{name}\(self: [\w.]+(?:, )?(.*)\) ->", documented)
    expected = [re.findall(r"(\w+): ", signature) for signature in signatures]
    assert list(inspect.signature(ours).parameters)[1:] in expected


# Source: cuda-bindings 13.5.0, inspect.signature of cuda.bindings.runtime
CUDA_PARAMETERS = {
    "cudaSetDevice": ["device"],
    "cudaDeviceGetAttribute": ["attr", "device"],
    "cudaGetDeviceProperties": ["device"],
    "cudaGetErrorString": ["error"],
    "cudaMemGetInfo": [],
    "cudaMalloc": ["size"],
    "cudaMallocHost": ["size"],
    "cudaFree": ["devPtr"],
    "cudaFreeHost": ["ptr"],
    "cudaStreamCreate": [],
    "cudaStreamDestroy": ["stream"],
    "cudaStreamSynchronize": ["stream"],
    "cudaMemcpyAsync": ["dst", "src", "count", "kind", "stream"],
    "cudaMemsetAsync": ["devPtr", "value", "count", "stream"],
    "cudaStreamBeginCapture": ["stream", "mode"],
    "cudaStreamEndCapture": ["stream"],
    "cudaGraphInstantiate": ["graph", "flags"],
    "cudaGraphDestroy": ["graph"],
    "cudaGraphLaunch": ["graphExec", "stream"],
    "cudaGraphExecDestroy": ["graphExec"],
    "cudaEventCreateWithFlags": ["flags"],
    "cudaEventRecord": ["event", "stream"],
    "cudaEventSynchronize": ["event"],
    "cudaEventDestroy": ["event"],
}


def test_the_stand_in_speaks_cuda() -> None:
    ours = {
        name: list(inspect.signature(value).parameters)[1:]
        for name, value in vars(cuda_stand_in.Cuda).items()
        if name.startswith("cuda") and inspect.isfunction(value)
    }
    assert ours == CUDA_PARAMETERS
