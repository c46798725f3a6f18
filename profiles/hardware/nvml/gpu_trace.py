"""What was seen of a GPU: its facts, its samples, and the energy between two moments."""

import itertools
from enum import StrEnum

import numpy as np
import pydantic

from nemotrt.files.model_file import Strict

COUNTER_BITS = 64
# A counter step beyond this power is no wrap but a reset; no NVIDIA card draws as much.
MAX_PLAUSIBLE_W = 5000.0
# A GPU that answers draws power, so its counter of millijoules moves at each update; the sensors
# behind it are at most averages over a second (nvml.h, nvmlDeviceGetPowerUsage).
MAX_STILL_S = 1.0
MS_PER_S = 1e3
BUSY_PERCENT = 50


class GpuFacts(Strict):
    """What the GPU is and how it is set; None where the driver does not say."""

    index: int
    is_mig: bool
    name: str | None = None
    uuid: str | None = None
    driver: str | None = None
    cuda_driver: str | None = None
    vbios: str | None = None
    memory_bytes: int | None = None
    is_memory_shared: bool | None = None  # with the CPU: the machine's, as a GB10 and a Jetson have
    power_limit_w: float | None = None
    power_source: str | None = None  # NVML's query: instantaneous, or averaged over 1 s
    max_sm_clock_mhz: int | None = None
    application_sm_clock_mhz: int | None = None
    is_ecc_on: bool | None = None
    is_persistence_on: bool | None = None
    is_mig_mode_on: bool | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    max_pcie_width: int | None = None
    mig_gpu_slices: int | None = None  # of a MIG instance
    mig_multiprocessors: int | None = None


class GpuSample(Strict):
    """One look at a GPU; None where it has no such figure."""

    at_s: float
    power_w: float | None = None
    energy_mj: int | None = None  # since the driver was loaded; a 64-bit counter
    sm_utilization_percent: int | None = None
    memory_utilization_percent: int | None = None
    memory_used_bytes: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    throttle_reasons: int | None = None  # bits of nvmlClocksEventReasons
    pcie_tx_kb_per_s: int | None = None
    pcie_rx_kb_per_s: int | None = None
    pids: tuple[int, ...] | None = None  # of compute processes
    ecc_errors: int | None = None  # uncorrected, since the driver was loaded
    pcie_replays: int | None = None


class EnergySource(StrEnum):
    """Where an energy comes from; the counter sees what lies between samples, the sum does not."""

    COUNTER = "total energy counter"
    INTEGRAL = "integrated power"


class Energy(Strict):
    """Joules between two moments."""

    joules: float
    source: EnergySource


class GpuTrace(Strict):
    """A GPU over a run; `lost` is why the samples end early.

    `failures` counts queries that failed though the GPU can have the figure, by their reason.
    """

    facts: GpuFacts
    samples: tuple[GpuSample, ...]
    interval_s: float
    sampler_cpu_share: float  # of one core
    num_missed: int  # samples that were due while an earlier one still took its time
    lost: str = ""
    failures: dict[str, int] = pydantic.Field(default_factory=dict)

    def between(self, start_s: float, end_s: float) -> tuple[GpuSample, ...]:
        """Return the samples in [start_s, end_s]."""
        return tuple(sample for sample in self.samples if start_s <= sample.at_s <= end_s)

    def busy_clocks_mhz(self, start_s: float, end_s: float) -> tuple[int, int] | None:
        """Return the lowest and highest SM clock under load, None where it was not seen.

        An idle GPU lowers its clock by itself, and NVML does not tell whether the clock is locked:
        only what it does under load does.
        """
        clocks = [
            sample.sm_clock_mhz
            for sample in self.between(start_s, end_s)
            if sample.sm_clock_mhz is not None
            and (sample.sm_utilization_percent or 0) >= BUSY_PERCENT
        ]
        return (min(clocks), max(clocks)) if clocks else None

    def energy(self, start_s: float, end_s: float) -> Energy | None:
        """Return the energy from `start_s` to `end_s`, None where the samples don't cover it.

        A counter that stands still, and a power of 0 W throughout, are sensors that are not there.
        """
        joules = _counted(self._counts, start_s, end_s)
        if joules and not self.has_still_counter(start_s, end_s):
            return Energy(joules=joules, source=EnergySource.COUNTER)
        return self.integral(start_s, end_s)

    def integral(self, start_s: float, end_s: float) -> Energy | None:
        """Return the power integrated over time, None where the samples don't cover it."""
        powers = [(s.at_s, s.power_w) for s in self.samples if s.power_w is not None]
        if not _covers([at_s for at_s, _ in powers], start_s, end_s, self.interval_s):
            return None
        times, watts = np.array(powers).T
        inside = times[(times > start_s) & (times < end_s)]
        points = np.concatenate(([start_s], inside, [end_s]))
        joules = float(np.trapezoid(np.interp(points, times, watts), points))
        return Energy(joules=joules, source=EnergySource.INTEGRAL) if joules > 0 else None

    def has_still_counter(self, start_s: float, end_s: float) -> bool:
        """Return whether the energy counter stands still in [start_s, end_s] for a notable time."""
        since_s: float | None = None
        last: int | None = None
        for at_s, count in self._counts:
            if last is None or since_s is None or count != last:
                since_s, last = at_s, count
            elif min(at_s, end_s) - max(since_s, start_s) >= min(MAX_STILL_S, end_s - start_s) > 0:
                return True
        return False

    @property
    def _counts(self) -> list[tuple[float, int]]:
        """The energy counter, wherever it was told."""
        return [(s.at_s, s.energy_mj) for s in self.samples if s.energy_mj is not None]


def _covers(times: list[float], start_s: float, end_s: float, interval_s: float) -> bool:
    """Return whether samples reach both ends, within one and a half intervals."""
    slack_s = 1.5 * interval_s
    return len(times) > 1 and times[0] <= start_s + slack_s and times[-1] >= end_s - slack_s


def _counted(counts: list[tuple[float, int]], start_s: float, end_s: float) -> float | None:
    """Return the joules by the counter, read between samples by interpolation.

    A counter that falls has wrapped if the step fits a GPU's power, else it was reset and the
    counter says nothing about this window.
    """
    times = [at_s for at_s, _ in counts]
    if len(times) < 2 or times[0] > start_s or times[-1] < end_s:
        return None
    joules = [0.0]
    for (earlier_s, earlier), (later_s, later) in itertools.pairwise(counts):
        step_mj = (later - earlier) % 2**COUNTER_BITS
        if step_mj / MS_PER_S > MAX_PLAUSIBLE_W * max(later_s - earlier_s, 1.0):
            return None
        joules.append(joules[-1] + step_mj / MS_PER_S)
    at_start, at_end = np.interp([start_s, end_s], times, joules)
    return float(at_end - at_start)
