"""What a trace says: energy by counter or power, flags, programs, clocks under load."""

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.profiles.hardware.nvml.flags import flags
from nemotrt.profiles.hardware.nvml.gpu_trace import EnergySource, GpuFacts, GpuSample, GpuTrace
from nemotrt.profiles.hardware.nvml.processes import programs
from nemotrt.profiles.runs.metrics.metric import NotComputableError
from nemotrt.profiles.runs.metrics.run_view import RunView
from nemotrt.profiles.runs.metrics.window_metrics import energy_j


def trace_of(samples, **facts):
    given_facts = dict.fromkeys(GpuFacts.model_fields) | {"index": 0, "is_mig": False} | facts
    return GpuTrace(
        facts=GpuFacts(**given_facts),
        samples=tuple(samples),
        interval_s=1.0,
        sampler_cpu_share=0.0,
        num_missed=0,
    )


def test_energy_by_the_counter():
    counts = [(0, 1000), (1, 101_000), (2, 201_000), (3, 301_000)]  # 100 W
    trace = trace_of(GpuSample(at_s=t, energy_mj=c, power_w=7) for t, c in counts)
    found = trace.energy(0.5, 2.5)
    assert found is not None
    assert (found.joules, found.source) == (pytest.approx(200), EnergySource.COUNTER)


def test_a_counter_that_wraps_goes_on():
    counts = [(0, 2**64 - 50_000), (1, 50_000), (2, 150_000)]
    found = trace_of(GpuSample(at_s=t, energy_mj=c) for t, c in counts).energy(0, 2)
    assert found is not None
    assert found.joules == pytest.approx(200)


def test_a_counter_that_was_reset_is_not_believed():
    counts = [(0, 9_000_000), (1, 0), (2, 100_000)]
    samples = [GpuSample(at_s=t, energy_mj=c, power_w=50) for t, c in counts]
    found = trace_of(samples).energy(0, 2)
    assert found is not None
    assert (found.joules, found.source) == (pytest.approx(100), EnergySource.INTEGRAL)


@pytest.mark.parametrize("still_from_s", [0, 2, 5])
@pytest.mark.parametrize("power_w", [50.0, 0.0, None])
def test_a_counter_that_stands_still_is_not_believed(still_from_s, power_w):
    """Within the window or from before it: the power says the energy, or nothing does."""
    samples = [
        GpuSample(at_s=t / 2, energy_mj=7000 + 25_000 * min(t, 2 * still_from_s), power_w=power_w)
        for t in range(20)
    ]
    trace = trace_of(samples)
    found = trace.energy(1, 9)
    [text] = [text for text in flags(trace, 1, 9) if "counter" in text]
    if power_w:
        assert found is not None
        assert (found.joules, found.source) == (pytest.approx(400), EnergySource.INTEGRAL)
        assert "stood still; the energy is integrated power" in text
    else:
        assert found is None
        assert "stood still; there is no energy" in text
    view = RunView((), (), 1.0, 9.0, 0.0, gpus=(trace,))
    if not power_w:
        with pytest.raises(NotComputableError):
            energy_j(view)


def test_a_counter_that_moves_late_is_believed():
    """The driver updates it some ten times a second, and it may be asked more often."""
    samples = [GpuSample(at_s=t / 50, energy_mj=1000 + 10_000 * (t // 5)) for t in range(200)]
    trace = trace_of(samples)
    assert flags(trace, 0.5, 3.5) == []
    found = trace.energy(0.5, 3.5)
    assert found is not None
    assert (found.joules, found.source) == (pytest.approx(300, rel=0.02), EnergySource.COUNTER)


def test_power_is_integrated_by_trapezoids():
    """0 W at 0 s rising to 40 W at 4 s: between 1 s and 3 s, 2 s at 20 W on average."""
    trace = trace_of(GpuSample(at_s=t, power_w=10 * t) for t in range(5))
    found = trace.energy(1, 3)
    assert found is not None
    assert found.joules == pytest.approx(40)
    assert trace.energy(-3, 3) is None
    assert trace.energy(1, 9) is None


@given(st.floats(1, 700), st.floats(0, 5), st.floats(0.1, 5), st.integers(0, 2**64 - 1))
def test_constant_power_gives_power_times_time(watts, start_s, length_s, first_mj):
    times = [0.5 * i for i in range(-1, 25)]
    samples = [
        GpuSample(at_s=t, power_w=watts, energy_mj=(first_mj + round(1e3 * watts * t)) % 2**64)
        for t in times
    ]
    for trace in (
        trace_of(samples),
        trace_of(sample.model_copy(update={"energy_mj": None}) for sample in samples),
    ):
        found = trace.energy(start_s, start_s + length_s)
        assert found is not None
        assert found.joules == pytest.approx(watts * length_s, rel=1e-3, abs=0.01)


A, B = 2**22 + 1, 2**22 + 2  # beyond the largest process id of Linux


def test_flags():
    busy = [
        GpuSample(at_s=t, sm_utilization_percent=95, sm_clock_mhz=c, throttle_reasons=r, pids=p)
        for t, c, r, p in [(1, 1500, 4, (A,)), (2, 1200, 0x44, (A, B)), (3, 1500, 1, None)]
    ]
    texts = " ".join(flags(trace_of(busy, is_persistence_on=False), 0, 10))
    assert "power cap in 2 of 3 samples" in texts
    assert "hardware thermal slowdown in 1 of 3" in texts
    assert f"2 programs: {A}; {B}" in texts
    assert "from 1200 to 1500 MHz" in texts
    assert "persistence mode is off" in texts
    quiet = [GpuSample(at_s=t, sm_utilization_percent=0) for t in (1, 2)]
    [text] = flags(trace_of(quiet), 0, 10)
    assert "did nothing" in text
    assert "whole GPU's" in " ".join(flags(trace_of([], is_mig=True), 0, 10))
    idle = [
        GpuSample(at_s=1, sm_utilization_percent=0, sm_clock_mhz=c, pids=(A,)) for c in (210, 1500)
    ]
    assert flags(trace_of(idle, is_persistence_on=True), 0, 10) == []


@pytest.mark.parametrize("order", [1, -1], ids=["parent first", "parent last"])
def test_a_server_and_its_workers_are_one_program(order):
    """A child, a child in a session of its own, and one that has nothing to do with us.

    Numbers of processes wrap around, so that a child's may be below its parent's.
    """
    sleep = ["sleep", "30"]
    children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]
    try:
        pids = [os.getpid(), *(child.pid for child in children), 2**22 + 1]
        own, *others = programs(pids[::order])
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert all(str(child.pid) in own for child in children)
    assert "sleep" in own
    assert others == [str(2**22 + 1)]
    strangers = [subprocess.Popen(sleep, start_new_session=True) for _ in range(2)]
    try:
        assert len(programs(child.pid for child in strangers)) == 2
    finally:
        for child in strangers:
            child.kill()
            child.wait()


def test_two_instances_of_a_gpu_use_its_energy_once():
    samples = [GpuSample(at_s=t, energy_mj=100_000 * t) for t in range(4)]
    instances = tuple(trace_of(samples, is_mig=True, uuid=f"MIG-{k}") for k in range(2))
    view = RunView((), (), 0.0, 2.0, 0.0, gpus=instances)
    assert energy_j(view) == pytest.approx([200])


def test_clocks_under_load():
    samples = [
        GpuSample(at_s=t, sm_utilization_percent=u, sm_clock_mhz=c)
        for t, u, c in [(0, 0, 210), (1, 90, 1485), (2, 95, 1500), (3, 0, 300)]
    ]
    assert trace_of(samples).busy_clocks_mhz(0, 3) == (1485, 1500)
    assert trace_of(samples).busy_clocks_mhz(3, 3) is None


@pytest.mark.parametrize(
    ("watts", "is_apart"), [(100.0, False), (104.0, False), (110.0, True), (90.0, True)]
)
def test_counter_and_integral_that_disagree_are_told(watts, is_apart):
    """The counter rises by 100 J each second, over 10 s."""
    samples = [
        GpuSample(at_s=float(k), power_w=watts, energy_mj=1 + 100_000 * k) for k in range(11)
    ]
    found = [text for text in flags(trace_of(samples), 0.0, 10.0) if "one of the two" in text]
    assert bool(found) is is_apart
    if is_apart:
        assert "says 1000 J" in found[0] and f"integrated {10 * watts:.0f} J" in found[0]
    assert not any("one of the two" in text for text in flags(trace_of(samples[:2]), 0.0, 1.0))
