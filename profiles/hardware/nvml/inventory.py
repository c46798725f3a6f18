"""Which GPUs the driver shows, for `nemotrt doctor`."""

from dataclasses import dataclass

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.profiles.hardware.nvml.device import Device, DeviceLostError, select_devices
from nemotrt.profiles.hardware.nvml.library import NvmlAbsentError, nvml_session


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that NVML sees; None where the driver does not say."""

    name: str | None
    memory_bytes: int | None
    compute_capability: str | None

    def __str__(self) -> str:
        """Return the line for a person."""
        size = self.memory_bytes
        memory = "memory not told" if size is None else f"{size / 2**30:.1f} GiB"
        capability = self.compute_capability or "compute capability not told"
        return f"{self.name or 'name not told'}, {memory}, {capability}"


def find_gpus() -> tuple[tuple[Gpu, ...], str]:
    """Return the GPUs, and why there are none or some are missing."""
    gpus, notes = [], []
    try:
        with nvml_session() as nvml:
            found = select_devices(nvml)
            notes += [found.absence] if found.absence else []
            for device in found.devices:
                try:
                    gpus.append(_gpu(device))
                except DeviceLostError as error:
                    notes.append(error.message)
    except NvmlAbsentError as error:
        notes.append(error.reason)
    except EnvironmentUnfitError as error:
        notes.append(error.message)
    return tuple(gpus), " ".join(notes)


def _gpu(device: Device) -> Gpu:
    """Return what a GPU is; raises DeviceLostError."""
    nvml, ask, gpu = device.nvml, device.ask, device.gpu
    memory = ask(nvml.nvmlDeviceGetMemoryInfo, gpu)
    capability = ask(nvml.nvmlDeviceGetCudaComputeCapability, gpu)
    return Gpu(
        ask(nvml.nvmlDeviceGetName, gpu),
        None if memory is None else int(memory.total),
        None if capability is None else ".".join(map(str, capability)),
    )
