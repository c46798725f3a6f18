"""What the sampler sees of the one GPU that the stand-in library has."""

import time

from nemotrt.profiles.hardware.nvml.device import select_devices
from nemotrt.profiles.hardware.nvml.gpu_trace import GpuTrace
from nemotrt.profiles.hardware.nvml.library import nvml_session
from nemotrt.profiles.hardware.nvml.sampler import GpuSampler


def sample_for(seconds: float, rate_hz: float) -> GpuTrace:
    """Return the trace of the first GPU over some seconds."""
    start_s = time.perf_counter()
    with nvml_session() as nvml, GpuSampler(select_devices(nvml).devices, rate_hz) as sampler:
        time.sleep(seconds)
    return sampler.traces(start_s)[0]
