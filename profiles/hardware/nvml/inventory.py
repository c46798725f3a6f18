"""Which GPUs the driver shows, for `nemotrt doctor`."""

from contextlib import suppress
from dataclasses import dataclass

from nemotrt.engines.backends.protocol.local_gpu import local_compute_capability
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


@dataclass(frozen=True, slots=True)
class Inventory:
    """What NVML tells; `capability` is of the GPU that CUDA takes, None where that is not told.

    `note` says why there are no GPUs, or some are missing, or shared out.
    """

    gpus: tuple[Gpu, ...]
    note: str
    driver: str | None
    capability: str | None


def take_inventory() -> Inventory:
    """Return the GPUs, the driver, and which of them CUDA takes."""
    gpus, note = find_gpus()
    driver, shared = _driver_and_shares()
    capability = local_compute_capability() if gpus else None
    return Inventory(gpus, " ".join(filter(None, (note, *shared))), driver, capability)


def _driver_and_shares() -> tuple[str | None, list[str]]:
    """Return the driver's version, and a sentence for each GPU in MIG mode."""
    shared: list[str] = []
    driver = None
    with suppress(EnvironmentUnfitError), nvml_session() as nvml:  # find_gpus has said why
        for device in select_devices(nvml).devices:
            driver = driver or device.ask(nvml.nvmlSystemGetDriverVersion)
            modes = device.ask(nvml.nvmlDeviceGetMigMode, device.gpu)
            if modes and modes[0]:
                shared.append(
                    f"GPU {device.index} is in MIG mode: a process has one instance of it, with "
                    "that one's memory."
                )
    return driver, shared


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
