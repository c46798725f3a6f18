"""One look at a device: its facts once, its figures at each sample."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from nemotrt.profiles.hardware.nvml.device import Device
from nemotrt.profiles.hardware.nvml.gpu_trace import GpuFacts, GpuSample

MW_PER_W = 1e3
MEMINFO = Path("/proc/meminfo")
KIB = 1024


class _Memory(NamedTuple):
    """Bytes of a GPU's memory, and whether it is the machine's."""

    total: int
    used: int
    is_shared: bool


def read_facts(device: Device) -> GpuFacts:
    """Return what the device is; raises DeviceLostError."""
    nvml, ask, gpu = device.nvml, device.ask, device.gpu
    memory = _memory(device)
    limit_mw = ask(nvml.nvmlDeviceGetEnforcedPowerLimit, gpu)
    ecc, mig = ask(nvml.nvmlDeviceGetEccMode, gpu), ask(nvml.nvmlDeviceGetMigMode, gpu)
    persistence = ask(nvml.nvmlDeviceGetPersistenceMode, gpu)
    cuda = ask(nvml.nvmlSystemGetCudaDriverVersion_v2)
    return GpuFacts(
        index=device.index,
        is_mig=device.is_mig,
        name=ask(nvml.nvmlDeviceGetName, gpu),
        uuid=ask(nvml.nvmlDeviceGetUUID, device.part),
        driver=ask(nvml.nvmlSystemGetDriverVersion),
        cuda_driver=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        vbios=ask(nvml.nvmlDeviceGetVbiosVersion, gpu),
        memory_bytes=None if memory is None else memory.total,
        is_memory_shared=None if memory is None else memory.is_shared,
        power_limit_w=None if limit_mw is None else limit_mw / MW_PER_W,
        power_source="nvmlDeviceGetPowerUsage"
        if _instant_power_mw(device) is None
        else "NVML_FI_DEV_POWER_INSTANT",
        max_sm_clock_mhz=ask(nvml.nvmlDeviceGetMaxClockInfo, gpu, nvml.NVML_CLOCK_SM),
        application_sm_clock_mhz=ask(nvml.nvmlDeviceGetApplicationsClock, gpu, nvml.NVML_CLOCK_SM),
        is_ecc_on=None if ecc is None else bool(ecc[0]),
        is_persistence_on=None if persistence is None else bool(persistence),
        is_mig_mode_on=None if mig is None else bool(mig[0]),
        pcie_generation=ask(nvml.nvmlDeviceGetCurrPcieLinkGeneration, gpu),
        pcie_width=ask(nvml.nvmlDeviceGetCurrPcieLinkWidth, gpu),
        max_pcie_width=ask(nvml.nvmlDeviceGetMaxPcieLinkWidth, gpu),
        **_mig_slices(device),
    )


def _memory(device: Device) -> _Memory | None:
    """Return the memory of a GPU; of one that has none of its own, the machine's.

    Source: NVML's driver does not support nvmlDeviceGetMemoryInfo on a GB10 or a Jetson, whose GPU
    and CPU share one memory; proc(5), /proc/meminfo.
    """
    nvml = device.nvml

    def query() -> _Memory | None:
        try:
            found = nvml.nvmlDeviceGetMemoryInfo(device.part)
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_NOT_SUPPORTED and not device.is_mig:
                return _machine_memory()
            raise
        return _Memory(found.total, found.used, is_shared=False)

    return device.ask(query)


def _machine_memory() -> _Memory | None:
    """Return the memory of this machine; None where the system does not tell."""
    try:
        rows = [line.split() for line in MEMINFO.read_text(encoding="utf-8").splitlines()]
        sizes = {row[0]: int(row[1]) * KIB for row in rows if row[2:] == ["kB"]}
        total, available = sizes["MemTotal:"], sizes["MemAvailable:"]
    except (OSError, ValueError, KeyError):
        return None
    return _Memory(total, total - available, is_shared=True)


def _mig_slices(device: Device) -> dict[str, Any]:
    """Return what a MIG instance has of its GPU, {} for a whole one."""
    if not device.is_mig:
        return {}
    found: Any = device.ask(device.nvml.nvmlDeviceGetAttributes_v2, device.part)
    if found is None:
        return {}
    return {
        "mig_gpu_slices": found.gpuInstanceSliceCount,
        "mig_multiprocessors": found.multiprocessorCount,
    }


def read_sample(device: Device, clock: Callable[[], float], *, with_slow: bool) -> GpuSample:
    """Return the device's figures.

    Power and energy come first, and the time stamp is theirs: what is asked after them may take
    40 ms, by which an energy of a short window would be off.

    Args:
        device: what to ask.
        clock: of the sample's time stamp.
        with_slow: also ask for what the driver takes long to answer: PCIe throughput, which it
            counts for 20 ms a direction (nvml.h, nvmlDeviceGetPcieThroughput), processes, and the
            counts of errors.

    Raises:
        DeviceLostError: the GPU is gone.
    """
    nvml, ask, gpu = device.nvml, device.ask, device.gpu
    power_w = _power_w(device)
    energy_mj = ask(nvml.nvmlDeviceGetTotalEnergyConsumption, gpu)
    at_s = clock()
    utilization = ask(nvml.nvmlDeviceGetUtilizationRates, device.part)
    memory = _memory(device)
    slow: dict[str, Any] = {}
    if with_slow:
        pcie = nvml.nvmlDeviceGetPcieThroughput
        slow["pcie_tx_kb_per_s"] = ask(pcie, gpu, nvml.NVML_PCIE_UTIL_TX_BYTES)
        slow["pcie_rx_kb_per_s"] = ask(pcie, gpu, nvml.NVML_PCIE_UTIL_RX_BYTES)
        processes = ask(nvml.nvmlDeviceGetComputeRunningProcesses, device.part)
        uncorrected = (nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC)
        slow["ecc_errors"] = ask(nvml.nvmlDeviceGetTotalEccErrors, gpu, *uncorrected)
        slow["pcie_replays"] = ask(nvml.nvmlDeviceGetPcieReplayCounter, gpu)
        slow["pids"] = None if processes is None else tuple(sorted(p.pid for p in processes))
    return GpuSample(
        at_s=at_s,
        power_w=power_w,
        energy_mj=energy_mj,
        sm_utilization_percent=None if utilization is None else utilization.gpu,
        memory_utilization_percent=None if utilization is None else utilization.memory,
        memory_used_bytes=None if memory is None else memory.used,
        sm_clock_mhz=ask(nvml.nvmlDeviceGetClockInfo, gpu, nvml.NVML_CLOCK_SM),
        memory_clock_mhz=ask(nvml.nvmlDeviceGetClockInfo, gpu, nvml.NVML_CLOCK_MEM),
        temperature_c=_temperature(device),
        throttle_reasons=_throttle_reasons(device),
        **slow,
    )


def _power_w(device: Device) -> float | None:
    """Return the power now.

    From Ampere on, but for A100, nvmlDeviceGetPowerUsage is an average over one second; the field
    is the power at the moment, which newer drivers have.
    Source: nvml.h, nvmlDeviceGetPowerUsage and NVML_FI_DEV_POWER_INSTANT.
    """
    power_mw = _instant_power_mw(device)
    if power_mw is None:
        power_mw = device.ask(device.nvml.nvmlDeviceGetPowerUsage, device.gpu)
    return None if power_mw is None else power_mw / MW_PER_W


def _instant_power_mw(device: Device) -> int | None:
    """Return the power at the moment, None where the driver has averages only."""
    nvml = device.nvml
    wanted = [nvml.NVML_FI_DEV_POWER_INSTANT]
    fields = device.ask(nvml.nvmlDeviceGetFieldValues, device.gpu, wanted)
    if fields is None or fields[0].nvmlReturn != nvml.NVML_SUCCESS:
        return None
    return int(fields[0].value.uiVal)


def _temperature(device: Device) -> int | None:
    """Return the chip's temperature; older drivers have the older call only."""
    nvml, gpu = device.nvml, device.gpu
    found: int | None = device.ask(nvml.nvmlDeviceGetTemperatureV, gpu, nvml.NVML_TEMPERATURE_GPU)
    if found is None:
        found = device.ask(nvml.nvmlDeviceGetTemperature, gpu, nvml.NVML_TEMPERATURE_GPU)
    return found


def _throttle_reasons(device: Device) -> int | None:
    """Return the bits of why the clocks are lower than they could be."""
    nvml, gpu = device.nvml, device.gpu
    found: int | None = device.ask(nvml.nvmlDeviceGetCurrentClocksEventReasons, gpu)
    if found is None:
        found = device.ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, gpu)
    return found
