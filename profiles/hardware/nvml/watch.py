"""GPUs watched during a block, or the sentence that says why there are none."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.profiles.hardware.gpu_choice import GpuChoice
from nemotrt.profiles.hardware.nvml.device import select_devices
from nemotrt.profiles.hardware.nvml.gpu_trace import GpuTrace
from nemotrt.profiles.hardware.nvml.library import nvml_session
from nemotrt.profiles.hardware.nvml.sampler import GpuSampler


@dataclass(frozen=True, slots=True)
class Watch:
    """A sampler, or why there is none; `absence` also names GPUs that it leaves out."""

    sampler: GpuSampler | None = None
    absence: str = ""

    def traces(self, start_s: float) -> list[GpuTrace]:
        """Return what was seen, times counted from `start_s`."""
        return self.sampler.traces(start_s) if self.sampler else []


@contextmanager
def watching(choice: GpuChoice | None) -> Iterator[Watch]:
    """Yield a Watch that samples until the block ends.

    Raises:
        EnvironmentUnfitError: GPUs were named, and NVML does not start, or they can't be asked.
        ConfigError: a name means nothing here.
    """
    if choice is None:
        yield Watch()
        return
    with ExitStack() as stack:
        try:
            nvml = stack.enter_context(nvml_session())
            found = select_devices(nvml, choice.names)
        except EnvironmentUnfitError as error:
            if choice.names:
                raise
            yield Watch(absence=error.message)
            return
        if not found.devices:
            yield Watch(absence=found.absence)
            return
        sampler = stack.enter_context(GpuSampler(found.devices, choice.rate_hz))
        yield Watch(sampler, found.absence)
