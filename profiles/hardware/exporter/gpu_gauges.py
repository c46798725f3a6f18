"""The machine's GPUs in Prometheus form, asked of NVML at each scrape; nothing without a GPU."""

import atexit
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.profiles.hardware.nvml.device import Device, DeviceLostError, select_devices
from nemotrt.profiles.hardware.nvml.gpu_trace import MAX_STILL_S, GpuSample
from nemotrt.profiles.hardware.nvml.library import nvml_session
from nemotrt.profiles.hardware.nvml.reading import read_facts, read_sample

log = logging.getLogger("nemotrt.engine")
LABELS = ("gpu", "uuid")
MJ_PER_J = 1e3
INFO = "nemotrt_gpu_info"  # 1, with the GPU's name among its labels


GAUGES = {  # by their names in a sample
    "power_w": "Power draw.",
    "sm_utilization_percent": "Time with a kernel.",
    "memory_utilization_percent": "Time with memory traffic.",
    "memory_used_bytes": "Memory in use.",
    "sm_clock_mhz": "SM clock.",
    "temperature_c": "Temperature of the chip.",
    "throttle_reasons": "Bits of nvmlClocksEventReasons.",
}


@dataclass(slots=True)
class WatchedGpu:
    """A GPU, what it is called, and what its energy counter last did."""

    device: Device
    labels: tuple[str, str]
    name: str
    memory_bytes: int | None
    energy_mj: int = 0
    moved_s: float = 0.0

    def counts_energy(self, sample: GpuSample) -> bool:
        """Whether the counter moves; one that stands still, or never started, says nothing."""
        if sample.energy_mj is None:
            return False
        if sample.energy_mj != self.energy_mj:
            self.energy_mj, self.moved_s = sample.energy_mj, sample.at_s
        return sample.energy_mj > 0 and sample.at_s - self.moved_s < MAX_STILL_S


class GpuGauges(Collector):
    """Holds an NVML session for as long as the process lives."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        """Find the GPUs that are named, or all; none is no fault, and `absence` says why.

        Raises:
            ConfigError: a name means nothing here.
        """
        self.absence = ""
        self._turn = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._gpus: list[WatchedGpu] = []
        session = ExitStack()
        # Held to the end: a session that the garbage collector closes, in the middle of another
        # call of the binding's, waits for a lock that this very thread holds.
        atexit.register(session.close)
        try:
            found = select_devices(session.enter_context(nvml_session()), names)
        except EnvironmentUnfitError as error:
            self.absence = error.message
            log.info("%s", error.message)
            return
        if found.absence:
            self.absence = found.absence
            log.info("%s", found.absence)
        for device in found.devices:
            try:
                facts = read_facts(device)
            except DeviceLostError as error:
                self.absence = error.message
                log.error("%s", error.message)
                continue
            labels = (str(device.index), facts.uuid or "")
            self._gpus.append(WatchedGpu(device, labels, facts.name or "", facts.memory_bytes))

    @property
    def has_gpu(self) -> bool:
        """Whether a GPU answers."""
        return bool(self._gpus)

    def text(self) -> str:
        """Return the exposition; empty without a GPU."""
        if not self._gpus:
            return ""
        with self._turn:  # two scrapes at once would both move the counters' memory
            return generate_latest(self._registry).decode()

    def collect(self) -> Iterator[Metric]:
        """Yield a family per figure; a GPU that is lost is left out from then on."""
        samples = self._samples()
        for name, text in GAUGES.items():
            gauge = GaugeMetricFamily(f"nemotrt_gpu_{name}", text, labels=LABELS)
            for gpu, sample in samples:
                value = getattr(sample, name)
                if value is not None:
                    gauge.add_metric(gpu.labels, value)
            yield gauge
        memory = GaugeMetricFamily("nemotrt_gpu_memory_bytes", "Memory.", labels=LABELS)
        energy = CounterMetricFamily(
            "nemotrt_gpu_energy_joules", "Energy since the driver was loaded.", labels=LABELS
        )
        info = GaugeMetricFamily(INFO, "1, of the GPU's name.", labels=(*LABELS, "name"))
        for gpu, sample in samples:
            info.add_metric((*gpu.labels, gpu.name), 1)
            if gpu.memory_bytes is not None:
                memory.add_metric(gpu.labels, gpu.memory_bytes)
            if sample.energy_mj is not None and gpu.counts_energy(sample):
                energy.add_metric(gpu.labels, sample.energy_mj / MJ_PER_J)
        yield from (info, memory, energy)

    def _samples(self) -> list[tuple[WatchedGpu, GpuSample]]:
        found = []
        for gpu in list(self._gpus):
            try:
                found.append((gpu, read_sample(gpu.device, time.monotonic, with_slow=False)))
            except DeviceLostError as error:
                log.error("%s", error.message)
                self._gpus.remove(gpu)
        return found
