"""Which GPU or MIG instance is watched, and how it is asked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from nemotrt.errors import ConfigError, EnvironmentUnfitError

T = TypeVar("T")


class DeviceLostError(EnvironmentUnfitError):
    """The GPU has fallen off the bus, or was reset, while it was watched."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or a MIG instance of one; power, clocks and temperature are those of the whole GPU."""

    nvml: Any
    index: int
    gpu: Any  # handle of the whole GPU
    part: Any  # handle of the MIG instance, or of the GPU again
    is_mig: bool

    def ask(self, query: Callable[..., T], *args: Any) -> T | None:
        """Return `query(*args)`, None where this GPU or driver has no such figure now.

        Raises:
            DeviceLostError: the GPU is gone.
        """
        nvml = self.nvml
        try:
            return query(*args)
        except (
            nvml.NVMLError_NotSupported,
            nvml.NVMLError_FunctionNotFound,
            nvml.NVMLError_NoPermission,
            nvml.NVMLError_InvalidArgument,
            nvml.NVMLError_NotFound,
            nvml.NVMLError_ArgumentVersionMismatch,  # an older driver's structures
            nvml.NVMLError_NoData,
            nvml.NVMLError_Timeout,  # these two pass
            nvml.NVMLError_InUse,
        ):
            return None
        except nvml.NVMLError as error:
            raise DeviceLostError(f"GPU {self.index} no longer answers: {error}.") from error


def select_devices(nvml: Any, names: tuple[str, ...] = ()) -> list[Device]:
    """Return the devices that `names` mean; without names, every GPU.

    A name is an index ("0"), a MIG instance by index ("0:1"), or a UUID ("GPU-...", "MIG-...").

    Raises:
        ConfigError: a name means nothing here.
    """
    count = nvml.nvmlDeviceGetCount()
    if not names:
        return [_by_index(nvml, str(index), count) for index in range(count)]
    return [_by_name(nvml, name, count) for name in names]


def _by_name(nvml: Any, name: str, count: int) -> Device:
    """Return one device."""
    if not name.startswith(("GPU-", "MIG-")):
        return _by_index(nvml, name, count)
    try:
        handle = nvml.nvmlDeviceGetHandleByUUID(name)
    except nvml.NVMLError as error:
        raise ConfigError(f"no GPU has the UUID {name!r} ({error}); see `nvidia-smi -L`.") from None
    if name.startswith("GPU-"):
        return Device(nvml, nvml.nvmlDeviceGetIndex(handle), handle, handle, is_mig=False)
    gpu = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    return Device(nvml, nvml.nvmlDeviceGetIndex(gpu), gpu, handle, is_mig=True)


def _by_index(nvml: Any, name: str, count: int) -> Device:
    """Return the device of "0" or "0:1"."""
    first, _, second = name.partition(":")
    if not first.isdecimal() or (":" in name and not second.isdecimal()):
        raise ConfigError(f"GPU {name!r} must be an index, INDEX:MIG, or a UUID.")
    index = int(first)
    if index >= count:
        raise ConfigError(f"there is no GPU {index}; this machine has {count}, counted from 0.")
    gpu = nvml.nvmlDeviceGetHandleByIndex(index)
    if not second:
        return Device(nvml, index, gpu, gpu, is_mig=False)
    try:
        part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, int(second))
    except nvml.NVMLError as error:
        raise ConfigError(
            f"GPU {index} has no MIG instance {second} ({error}); see `nvidia-smi -L`."
        ) from None
    return Device(nvml, index, gpu, part, is_mig=True)
