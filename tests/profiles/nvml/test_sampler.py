"""The sampler's times: a rate that does not drift, and what a slow or lost driver costs."""

import itertools

import pytest

from nemotrt.profiles.hardware.nvml.flags import flags
from support.nvml_samples import sample_for


def steady_times(trace):
    """Times on the grid of 20 ms that the first one starts, or a little after it; None if not."""
    times = [sample.at_s for sample in trace.samples]
    offsets = [(at_s - times[0]) % 0.02 for at_s in times[:-1]]
    is_whole = len(times) + trace.num_missed == pytest.approx(51, abs=2)
    return times if is_whole and sorted(offsets)[len(offsets) // 2] < 0.005 else None


def test_the_rate_does_not_drift(nvml_script):
    """One run of three must be right: other work on the machine delays what is sampled."""
    traces = (sample_for(1.0, 50) for _ in range(3))
    found = next(((trace, t) for trace in traces if (t := steady_times(trace))), None)
    assert found, "no run of three kept to the grid"
    trace, times = found
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    assert 0 < trace.sampler_cpu_share < 0.5
    assert sum(sample.pids is not None for sample in trace.samples) <= 3  # asked once a second


def test_what_a_sample_takes_is_not_added_to_the_interval(nvml_script):
    """Of samples of 10 ms a third fewer would fit in then, on a machine of any load."""
    nvml_script(gpu0_power_us="10000")
    trace = sample_for(1.0, 50)
    times = [sample.at_s for sample in trace.samples]
    assert all(later > earlier for earlier, later in itertools.pairwise(times))
    # late ones of a busy machine are left out and counted: only the last one's lateness shows
    num_due = (times[-1] - times[0]) / 0.02
    assert len(times) - 1 + trace.num_missed == pytest.approx(num_due, abs=5)
    assert 0 < trace.sampler_cpu_share < 0.5
    assert sum(sample.pids is not None for sample in trace.samples) <= 1 + round(times[-1] + 1)


def test_a_slow_driver_costs_samples_not_drift(nvml_script):
    nvml_script(gpu0_power_us="30000")
    trace = sample_for(0.5, 100)
    assert trace.num_missed > 20
    assert 10 < len(trace.samples) < 20


def test_a_lost_gpu_keeps_what_was_seen(nvml_script):
    nvml_script(gpu0_power_mw="100000 100000 !15")
    trace = sample_for(0.3, 50)
    assert len(trace.samples) == 2
    assert "GPU is lost" in trace.lost
    assert any("GPU is lost" in text for text in flags(trace, 0, 1))
