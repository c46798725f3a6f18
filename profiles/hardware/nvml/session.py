"""Records GPUs on their own, without a load."""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.profiles.hardware.gpu_choice import GpuChoice
from nemotrt.profiles.hardware.nvml.device import select_devices
from nemotrt.profiles.hardware.nvml.gpu_trace import GpuFacts, GpuSample, GpuTrace
from nemotrt.profiles.hardware.nvml.library import nvml_session
from nemotrt.profiles.hardware.nvml.sampler import GpuSampler
from nemotrt.profiles.hardware.nvml.table import write_table


def record(
    choice: GpuChoice,
    output: Path,
    duration_s: float | None,
    on_sample: Callable[[list[tuple[GpuFacts, GpuSample]]], None] = lambda samples: None,
    on_absence: Callable[[str], None] = lambda absence: None,
) -> list[GpuTrace]:
    """Return the traces, written to `output`, after `duration_s`, Ctrl-C or SIGTERM.

    Args:
        choice: which GPUs, how often.
        output: the table.
        duration_s: None waits for a signal.
        on_sample: called each second with every GPU's last sample.
        on_absence: called once if GPUs are there that can't be asked.

    Raises:
        EnvironmentUnfitError: there is no GPU to watch.
        ConfigError: a GPU's name means nothing here.
    """
    start_s = time.perf_counter()
    before = signal.getsignal(signal.SIGTERM)
    with ExitStack() as stack:
        found = select_devices(stack.enter_context(nvml_session()), choice.names)
        if not found.devices:
            raise EnvironmentUnfitError(found.absence)
        if found.absence:
            on_absence(found.absence)
        it = stack.enter_context(GpuSampler(found.devices, choice.rate_hz))
        try:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            while duration_s is None or time.perf_counter() - start_s < duration_s:
                left_s = 1.0 if duration_s is None else start_s + duration_s - time.perf_counter()
                time.sleep(max(min(left_s, 1.0), 0.0))
                on_sample(it.latest())
                if it.is_lost:
                    break
        except KeyboardInterrupt:
            pass  # the usual way to end a session; what was seen is written below
        finally:
            signal.signal(signal.SIGTERM, before)
    traces = it.traces(start_s)
    if not any(trace.samples for trace in traces):
        raise EnvironmentUnfitError("; ".join(trace.lost or "no sample." for trace in traces))
    write_table(traces, output)
    return traces
