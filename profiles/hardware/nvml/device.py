"""Which GPU or MIG instance is watched, and how it is asked."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nemotrt.errors import ConfigError, EnvironmentUnfitError

T = TypeVar("T")


class DeviceLostError(EnvironmentUnfitError):
    """The GPU has fallen off the bus, or needs a reset."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or a MIG instance of one; power, clocks and temperature are those of the whole GPU.

    `failures` counts the queries that failed though the GPU can have the figure, by their reason.
    """

    nvml: Any
    index: int
    gpu: Any  # handle of the whole GPU
    part: Any  # handle of the MIG instance, or of the GPU again
    is_mig: bool
    failures: Counter[str] = field(default_factory=Counter, compare=False)

    def ask(self, query: Callable[..., T], *args: Any) -> T | None:
        """Return `query(*args)`, None where this GPU, driver or user can't have the figure now.

        Raises:
            DeviceLostError: the GPU is gone.
        """
        try:
            return query(*args)
        except self.nvml.NVMLError as error:
            if is_lost(self.nvml, error):
                raise DeviceLostError(f"GPU {self.index} no longer answers: {error}.") from error
            if not _is_absence(self.nvml, error):
                self.failures[str(error)] += 1
            return None
        except (self.nvml.NVMLLibraryMismatchError, UnicodeDecodeError):
            return None  # the binding's own: an older driver's functions, a text that is none


@dataclass(frozen=True, slots=True)
class Selection:
    """The GPUs to watch, and a sentence for each one that is there but can't be asked."""

    devices: list[Device]
    absences: tuple[str, ...] = ()

    @property
    def absence(self) -> str:
        """Why GPUs are missing, "" if none is."""
        if self.devices or self.absences:
            return " ".join(self.absences)
        return "No GPU figures: the driver sees no GPU."


def is_lost(nvml: Any, error: Any) -> bool:
    """Whether an NVML error says that the GPU is gone; any other one concerns a single figure."""
    return error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED)


def _is_absence(nvml: Any, error: Any) -> bool:
    """Whether an error says that this GPU, driver or user never has the figure."""
    return error.value in (
        nvml.NVML_ERROR_NOT_SUPPORTED,
        nvml.NVML_ERROR_NO_PERMISSION,
        nvml.NVML_ERROR_INVALID_ARGUMENT,
        nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        nvml.NVML_ERROR_NOT_FOUND,
        nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        nvml.NVML_ERROR_DEPRECATED,
    )


def select_devices(nvml: Any, names: tuple[str, ...] = ()) -> Selection:
    """Return the devices that `names` mean; without names, every GPU that can be asked.

    A name is an index ("0"), a MIG instance by index ("0:1"), or a UUID ("GPU-...", "MIG-...").

    Raises:
        ConfigError: a name means nothing here.
        EnvironmentUnfitError: the GPUs can't be counted, or one that is named can't be asked.
    """
    if names:
        return Selection([_by_name(nvml, name) for name in names])
    devices, absences = [], []
    for index in range(_count(nvml)):
        try:
            gpu = _handle(nvml, f"GPU {index}", nvml.nvmlDeviceGetHandleByIndex, index)
        except EnvironmentUnfitError as error:
            absences.append(error.message)
        else:
            devices.append(Device(nvml, index, gpu, gpu, is_mig=False))
    return Selection(devices, tuple(absences))


def _count(nvml: Any) -> int:
    """Return the number of GPUs."""
    try:
        return int(nvml.nvmlDeviceGetCount())
    except nvml.NVMLError as error:
        raise EnvironmentUnfitError(
            f"No GPU figures: the driver does not say how many GPUs there are: {error}."
        ) from error


def _handle(nvml: Any, who: str, query: Callable[..., T], *args: Any, unknown: str = "") -> T:
    """Return what identifies a device; `unknown` is the message where the driver knows none such.

    Raises:
        ConfigError: there is no such device.
        EnvironmentUnfitError: the driver does not give it; DeviceLostError if it is gone.
    """
    try:
        return query(*args)
    except nvml.NVMLError as error:
        if is_lost(nvml, error):
            raise DeviceLostError(f"{who} does not answer: {error}.") from error
        codes = (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT)
        if unknown and error.value in codes:
            raise ConfigError(f"{unknown} ({error}); see `nvidia-smi -L`.") from None
        raise EnvironmentUnfitError(f"{who} can't be asked: {error}.") from error


def _by_name(nvml: Any, name: str) -> Device:
    """Return one device."""
    if not name.startswith(("GPU-", "MIG-")):
        return _by_index(nvml, name)
    who = f"GPU {name}"
    unknown = f"no GPU has the UUID {name!r}"
    part = _handle(nvml, who, nvml.nvmlDeviceGetHandleByUUID, name, unknown=unknown)
    is_mig = name.startswith("MIG-")
    gpu = part
    if is_mig:
        gpu = _handle(nvml, who, nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, part)
    index = _handle(nvml, who, nvml.nvmlDeviceGetIndex, gpu)
    return Device(nvml, index, gpu, part, is_mig=is_mig)


def _by_index(nvml: Any, name: str) -> Device:
    """Return the device of "0" or "0:1"."""
    first, _, second = name.partition(":")
    if not first.isdecimal() or (":" in name and not second.isdecimal()):
        raise ConfigError(f"GPU {name!r} must be an index, INDEX:MIG, or a UUID.")
    index, count = int(first), _count(nvml)
    if index >= count:
        raise ConfigError(f"there is no GPU {index}; this machine has {count}, counted from 0.")
    gpu = _handle(nvml, f"GPU {index}", nvml.nvmlDeviceGetHandleByIndex, index)
    if not second:
        return Device(nvml, index, gpu, gpu, is_mig=False)
    part = _handle(
        nvml,
        f"GPU {name}",
        nvml.nvmlDeviceGetMigDeviceHandleByIndex,
        gpu,
        int(second),
        unknown=f"GPU {index} has no MIG instance {second}",
    )
    return Device(nvml, index, gpu, part, is_mig=True)
