"""The machine's GPUs in Prometheus form, asked of NVML at each scrape; nothing without a GPU."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.profiles.nvml.device import Device, DeviceLostError, select_devices
from nemotrt.profiles.nvml.gpu_trace import GpuSample
from nemotrt.profiles.nvml.library import nvml_session
from nemotrt.profiles.nvml.reading import read_facts, read_sample

log = logging.getLogger("nemotrt.engine")
LABELS = ("gpu", "uuid")
MJ_PER_J = 1e3


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of each GPU."""

    name: str
    text: str
    of: Callable[[GpuSample], float | None]


GAUGES = (
    Figure("power_w", "Power draw.", lambda s: s.power_w),
    Figure("sm_utilization_percent", "Time with a kernel.", lambda s: s.sm_utilization_percent),
    Figure("memory_utilization_percent", "Time with memory traffic.",
           lambda s: s.memory_utilization_percent),
    Figure("memory_used_bytes", "Memory in use.", lambda s: s.memory_used_bytes),
    Figure("sm_clock_mhz", "SM clock.", lambda s: s.sm_clock_mhz),
    Figure("temperature_c", "Temperature of the chip.", lambda s: s.temperature_c),
    Figure("throttle_reasons", "Bits of nvmlClocksEventReasons.", lambda s: s.throttle_reasons),
)  # fmt: skip


class GpuGauges(Collector):
    """Holds an NVML session for as long as the process lives."""

    def __init__(self) -> None:
        """Find the GPUs; none is no fault."""
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._session = ExitStack()
        self._devices: list[tuple[Device, tuple[str, str], int | None]] = []
        try:
            nvml = self._session.enter_context(nvml_session())
            for device in select_devices(nvml):
                facts = read_facts(device)
                labels = (str(device.index), facts.uuid or "")
                self._devices.append((device, labels, facts.memory_bytes))
        except EnvironmentUnfitError as error:
            log.info("%s", error.message)

    def text(self) -> str:
        """Return the exposition; empty without a GPU."""
        return generate_latest(self._registry).decode() if self._devices else ""

    def collect(self) -> Iterator[Metric]:
        """Yield a family a figure; a GPU that is lost is left out from then on."""
        samples = self._samples()
        for figure in GAUGES:
            gauge = GaugeMetricFamily(f"nemotrt_gpu_{figure.name}", figure.text, labels=LABELS)
            for labels, sample, _ in samples:
                value = figure.of(sample)
                if value is not None:
                    gauge.add_metric(labels, value)
            yield gauge
        memory = GaugeMetricFamily("nemotrt_gpu_memory_bytes", "Memory.", labels=LABELS)
        energy = CounterMetricFamily(
            "nemotrt_gpu_energy_joules", "Energy since the driver was loaded.", labels=LABELS
        )
        for labels, sample, memory_bytes in samples:
            if memory_bytes is not None:
                memory.add_metric(labels, memory_bytes)
            if sample.energy_mj is not None:
                energy.add_metric(labels, sample.energy_mj / MJ_PER_J)
        yield from (memory, energy)

    def _samples(self) -> list[tuple[tuple[str, str], GpuSample, int | None]]:
        found = []
        for entry in list(self._devices):
            device, labels, memory_bytes = entry
            try:
                sample = read_sample(device, time.monotonic(), with_slow=False)
            except DeviceLostError as error:
                log.error("%s", error.message)
                self._devices.remove(entry)
                continue
            found.append((labels, sample, memory_bytes))
        return found
