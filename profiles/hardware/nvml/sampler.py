"""Samples devices in a thread of its own, at a steady rate, and measures what that costs."""

import threading
import time
from types import TracebackType
from typing import Self

from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.nvml.device import Device, DeviceLostError
from nemotrt.profiles.hardware.nvml.gpu_trace import GpuFacts, GpuSample, GpuTrace
from nemotrt.profiles.hardware.nvml.reading import read_facts, read_sample

SLOW_INTERVAL_S = 1.0


class GpuSampler:
    """Samples while the `with` block runs; time stamps are `time.perf_counter`'s, as the driver's.

    Sample k is due at start + k / rate: the rate does not drift, and a sample that comes late is
    left out rather than made up for.
    """

    def __init__(self, devices: list[Device], rate_hz: float) -> None:
        """Read the devices' facts; one that is lost already has none, and no sample."""
        if not 0 < rate_hz <= 1000:
            raise ConfigError(f"the sample rate must be above 0, at most 1000 Hz, got {rate_hz}.")
        self._devices = devices
        self._interval_s = 1 / rate_hz
        self._facts: list[GpuFacts] = []
        self._samples: list[list[GpuSample]] = [[] for _ in devices]
        self._lost = [""] * len(devices)
        for place, device in enumerate(devices):
            try:
                self._facts.append(read_facts(device))
            except DeviceLostError as error:
                self._facts.append(GpuFacts(index=device.index, is_mig=device.is_mig))
                self._lost[place] = error.message
        self._num_missed = 0
        self._cpu_s = self._wall_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nvml", daemon=True)

    def __enter__(self) -> Self:
        """Start sampling."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take a last sample and stop."""
        self._stop.set()
        self._thread.join()

    def traces(self, start_s: float = 0.0) -> list[GpuTrace]:
        """Return what was seen, times counted from `start_s`; call it after the block."""
        return [
            GpuTrace(
                facts=facts,
                samples=tuple(
                    sample.model_copy(update={"at_s": round(sample.at_s - start_s, 6)})
                    for sample in samples
                ),
                interval_s=self._interval_s,
                sampler_cpu_share=self._cpu_s / max(self._wall_s, 1e-9),
                num_missed=self._num_missed,
                lost=lost,
                failures=dict(device.failures),
            )
            for device, facts, samples, lost in zip(
                self._devices, self._facts, self._samples, self._lost, strict=True
            )
        ]

    def latest(self) -> list[tuple[GpuFacts, GpuSample]]:
        """Return the last sample of each device that has one, beside its facts."""
        pairs = zip(self._facts, self._samples, strict=True)
        return [(facts, samples[-1]) for facts, samples in pairs if samples]

    @property
    def is_lost(self) -> bool:
        """Whether no device answers any more."""
        return all(self._lost)

    def _run(self) -> None:
        """Sample until told to stop (the sampler's thread)."""
        try:
            self._sample_until_stopped()
        except (
            Exception
        ) as error:  # a bug: its traceback is printed, and the traces say why they end
            self._lost = [lost or f"the sampler failed: {error!r}." for lost in self._lost]
            raise

    def _sample_until_stopped(self) -> None:
        """Take every sample that is due, and count what that costs."""
        start_s, cpu_start_s = time.perf_counter(), time.thread_time()
        tick, slow_due_s = 0, start_s
        while True:
            now_s = time.perf_counter()
            is_last = self._stop.is_set()
            with_slow = is_last or now_s >= slow_due_s
            if with_slow:
                slow_due_s = now_s + SLOW_INTERVAL_S
            self._sample(with_slow)
            if is_last:
                break
            next_tick = int((time.perf_counter() - start_s) / self._interval_s) + 1
            self._num_missed += next_tick - tick - 1
            tick = next_tick
            self._stop.wait(start_s + tick * self._interval_s - time.perf_counter())
        self._cpu_s = time.thread_time() - cpu_start_s
        self._wall_s = time.perf_counter() - start_s

    def _sample(self, with_slow: bool) -> None:
        """Take one sample of each device that is still there."""
        for place, device in enumerate(self._devices):
            if self._lost[place]:
                continue
            try:
                sample = read_sample(device, time.perf_counter, with_slow=with_slow)
            except DeviceLostError as error:
                self._lost[place] = error.message
            else:
                self._samples[place].append(sample)
