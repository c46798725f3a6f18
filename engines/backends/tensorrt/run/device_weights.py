"""Brings the checkpoint's tensors to the GPU, in the form in which the plan's inputs take them."""

import numpy as np
import numpy.typing as npt

from nemotrt.engines.artefact.manifest import WeightInput
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda, DeviceBuffer
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.stored.safetensors_file import DTYPES
from nemotrt.errors import ArtefactError

STAGING_BYTES = 1 << 25


def upload(
    cuda: Cuda, checkpoint: Checkpoint, weights: dict[str, WeightInput]
) -> dict[str, DeviceBuffer]:
    """Return input name -> device memory that holds its weight; all copies are done."""
    staging = cuda.host_array((STAGING_BYTES,), np.uint8)
    buffers = {}
    for name, entry in weights.items():
        raw = host_bytes(checkpoint, entry)
        buffers[name] = cuda.allocate(raw.size)
        for start in range(0, raw.size, STAGING_BYTES):
            part = raw[start : start + STAGING_BYTES]
            staging[: part.size] = part
            cuda.to_device(buffers[name].address + start, staging[: part.size])
            cuda.synchronize()  # the staging buffer is used again
    return buffers


def host_bytes(checkpoint: Checkpoint, entry: WeightInput) -> npt.NDArray[np.uint8]:
    """Return a weight's bytes as its input takes them: type and axes as the manifest says."""
    ref = checkpoint[entry.tensor]
    values = ref.map()
    if ref.dtype != entry.dtype:
        values = values.astype(DTYPES[entry.dtype])
    if entry.is_transposed:
        values = values.T
    if values.shape != tuple(entry.shape):
        raise ArtefactError(f"{ref.path}: {entry.tensor} is {values.shape}, not {entry.shape}.")
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
