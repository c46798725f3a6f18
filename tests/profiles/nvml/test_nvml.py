"""The real nvidia-ml-py against a stand-in library: every figure, every fault."""

import itertools
import json
import os
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.profiles.command import profile
from nemotrt.profiles.hardware.gpu_choice import GpuChoice
from nemotrt.profiles.hardware.nvml.device import select_devices
from nemotrt.profiles.hardware.nvml.flags import flags
from nemotrt.profiles.hardware.nvml.gpu_trace import EnergySource, GpuFacts, GpuSample, GpuTrace
from nemotrt.profiles.hardware.nvml.library import nvml_session
from nemotrt.profiles.hardware.nvml.processes import programs
from nemotrt.profiles.hardware.nvml.reading import read_facts, read_sample
from nemotrt.profiles.hardware.nvml.sampler import GpuSampler
from nemotrt.profiles.hardware.nvml.session import record
from nemotrt.profiles.hardware.nvml.watch import watching
from nemotrt.profiles.runs.metrics.metric import NotComputableError
from nemotrt.profiles.runs.metrics.run_view import RunView
from nemotrt.profiles.runs.metrics.window_metrics import energy_j
from nemotrt.profiles.runs.record.result import read_result

MIG = {
    "gpu0_mig": "2",
    "0.uuid@0": "MIG-a",
    "0.uuid@1": "MIG-b",
    "0.memory_used@1": "77",
    "0.memory_total@1": "100",
}


def look(names=()):
    with nvml_session() as nvml:
        [device] = select_devices(nvml, names).devices
        return read_facts(device), read_sample(device, lambda: 1.5, with_slow=True)


def test_every_figure(nvml_script):
    facts, sample = look()
    assert facts.name == "A10G"
    assert facts.driver == "580.95.05"
    assert facts.vbios == "94.02.75.00.01"
    assert facts.cuda_driver == "13.0"
    assert facts.power_limit_w == 300
    assert facts.power_source == "nvmlDeviceGetPowerUsage"
    assert facts.memory_bytes == 22587 * 2**20
    assert (facts.is_ecc_on, facts.is_persistence_on, facts.is_mig_mode_on) == (True, True, None)
    assert sample == GpuSample(
        at_s=1.5,
        power_w=100.0,
        energy_mj=5000,
        sm_utilization_percent=99,
        memory_utilization_percent=60,
        memory_used_bytes=2**30,
        sm_clock_mhz=1500,
        memory_clock_mhz=6250,
        temperature_c=55,
        throttle_reasons=0,
        pcie_tx_kb_per_s=1200,
        pcie_rx_kb_per_s=3400,
        pids=(1000,),
    )


def test_what_the_gpu_does_not_support_is_none(nvml_script):
    nvml_script(gpu0_energy_mj=None, gpu0_temperature=None, gpu0_throttle=None, gpu0_pcie_tx="!3")
    _, sample = look()
    assert sample.energy_mj is None
    assert sample.temperature_c is None
    assert sample.throttle_reasons is None
    assert sample.pcie_tx_kb_per_s is None
    assert sample.power_w == 100


def test_the_power_of_the_moment_is_preferred(nvml_script):
    """From Ampere on the other query is an average over a second."""
    nvml_script(gpu0_power_instant_mw="123000")
    facts, sample = look()
    assert (sample.power_w, facts.power_source) == (123, "NVML_FI_DEV_POWER_INSTANT")


@pytest.mark.parametrize("code", [10, 19, 25])  # a timeout, a GPU in use, an older driver
def test_a_query_that_fails_once_does_not_end_the_trace(nvml_script, code):
    nvml_script(gpu0_temperature=f"!{code} 55", gpu0_power_mw=f"100000 !{code} 150000")
    trace = sample_for(0.2, 50)
    assert trace.lost == ""
    assert [s.power_w for s in trace.samples[:3]] == [100, None, 150]
    assert [s.temperature_c for s in trace.samples[:2]] == [None, 55]


def test_queries_that_fail_are_counted_by_their_reason(nvml_script):
    """What the GPU never has is no failure; what fails once is, and its figure is missing."""
    nvml_script(gpu0_temperature="!10 !999 55", gpu0_pcie_tx="!3", gpu0_throttle="!4")
    trace = sample_for(0.2, 50)
    assert trace.failures == {"Timeout": 1, "Unknown Error": 1}
    [text] = [text for text in flags(trace, 0, 1) if "queries failed" in text]
    assert "Timeout (1), Unknown Error (1)" in text


def test_the_stamp_is_that_of_power_and_energy(nvml_script, tmp_path):
    """What is asked later may take 40 ms: none of it lies before the stamp, all of power does."""
    calls = tmp_path / "calls.txt"
    with nvml_session() as nvml:
        nvml_script(calls=str(calls))
        nvml.nvmlInit()  # reads the script anew
        [device] = select_devices(nvml).devices
        before = []

        def clock():
            before.extend(calls.read_text().split())
            return 0.0

        calls.write_text("")
        read_sample(device, clock, with_slow=True)
    energy = "nvmlDeviceGetTotalEnergyConsumption"
    assert before == ["nvmlDeviceGetFieldValues", "nvmlDeviceGetPowerUsage", energy]
    assert len(calls.read_text().split()) > len(before)


def test_errors_of_memory_and_link_are_flagged(nvml_script):
    """Counted since the driver was loaded: what came in the window counts."""
    nvml_script(
        gpu0_ecc_errors="5 7",
        gpu0_pcie_replays="100 100",
        gpu0_pcie_width="8",
        gpu0_max_pcie_width="16",
    )
    trace = sample_for(0.2, 50)  # the first sample and the last ask
    found = [text for text in flags(trace, 0, 1) if "errors" in text or "PCIe" in text]
    assert found == [
        "GPU 0: 2 uncorrected memory errors came in the window.",
        "GPU 0: its PCIe link has 8 of 16 lanes.",
    ]


def test_a_mig_instance_tells_its_slices(nvml_script):
    nvml_script(**MIG, **{"0.mig_slices@1": "3", "0.mig_multiprocessors@1": "42"})
    facts, _ = look(("0:1",))
    assert (facts.mig_gpu_slices, facts.mig_multiprocessors) == (3, 42)
    assert look(("0",))[0].mig_gpu_slices is None


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


def test_devices_are_chosen_by_index_uuid_and_mig(nvml_script):
    nvml_script(**MIG)
    assert look(("0",))[0].uuid == "GPU-11111111-2222-3333-4444-555555555555"
    assert look(("GPU-11111111-2222-3333-4444-555555555555",))[0].index == 0
    for name in ("0:1", "MIG-b"):
        facts, sample = look((name,))
        assert (facts.is_mig, facts.uuid, facts.memory_bytes) == (True, "MIG-b", 100)
        assert sample.memory_used_bytes == 77
        assert sample.power_w == 100  # the whole GPU's
        assert sample.sm_utilization_percent is None  # not told for an instance


@pytest.mark.parametrize(
    ("name", "message"),
    [("7", "this machine has 1"), ("x", "an index"), ("GPU-9", "nvidia-smi -L"), ("0:5", "no MIG")],
)
def test_an_unknown_device_is_refused(nvml_script, name, message):
    nvml_script(**MIG)
    with pytest.raises(ConfigError, match=message):
        look((name,))


@pytest.mark.parametrize(
    ("code", "message"), [(9, "not loaded"), (12, "not installed"), (18, "differ in version")]
)
def test_without_a_driver_it_says_so(nvml_script, code, message):
    nvml_script(init=str(code))
    with pytest.raises(EnvironmentUnfitError, match=message):
        look()
    with watching(GpuChoice()) as watch:
        assert "No GPU figures" in watch.absence
        assert watch.traces(0.0) == []
    with pytest.raises(EnvironmentUnfitError), watching(GpuChoice(("0",))):
        pass


def sample_for(seconds, rate_hz):
    start_s = time.perf_counter()
    with nvml_session() as nvml, GpuSampler(select_devices(nvml).devices, rate_hz) as sampler:
        time.sleep(seconds)
    return sampler.traces(start_s)[0]


def test_the_rate_does_not_drift(nvml_script):
    """What a sample takes is not added to the interval: a third fewer would fit in then."""
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


def test_a_run_has_the_gpus_figures(nvml_script, engine_folder, tmp_path):
    nvml_script(gpu0_throttle="4", gpu0_energy_mj=" ".join(str(1000 * k) for k in range(500)))
    args = [str(engine_folder), "-o", str(tmp_path / "run"), "--isl", "16", "--osl", "64"]
    done = CliRunner().invoke(profile, [*args, "-n", "8", "--gpu", "0", "--gpu-rate-hz", "50"])
    assert done.exit_code == 0, done.output
    result = read_result(tmp_path / "run")
    assert result.gpus[0].facts.name == "A10G"
    assert result.metric("energy_j") > 0
    start_s, end_s = result.window_s or (0, 0)
    tokens = result.metric("tokens_per_s") * (end_s - start_s)
    assert result.metric("joules_per_token") == pytest.approx(result.metric("energy_j") / tokens)
    assert result.energy[0] is not None
    assert any("power cap" in note for note in result.notes)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "GPU 0 power" in page
    assert "total energy counter" in page


def test_a_run_without_a_gpu_says_so_and_goes_on(nvml_script, engine_folder, tmp_path):
    nvml_script(init="9")
    args = [str(engine_folder), "-o", str(tmp_path / "run"), "--isl", "8", "--osl", "2", "-n", "1"]
    done = CliRunner().invoke(profile, args)
    assert done.exit_code == 0, done.output
    assert "No GPU figures: the NVIDIA driver is not loaded" in done.stdout
    assert read_result(tmp_path / "run").metrics["energy_j"].not_computable
    assert CliRunner().invoke(profile, [*args, "--force", "--gpu", "0"]).exit_code == 3


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_a_session_of_its_own(nvml_script, tmp_path, suffix):
    path = tmp_path / f"gpu.{suffix}"
    args = ["gpu", "-o", str(path), "--duration-s", "0.3", "--rate-hz", "20"]
    done = CliRunner().invoke(profile, args)
    assert done.exit_code == 0, done.output
    if suffix == "csv":
        header, first, *rest = path.read_text().splitlines()
        assert len(rest) >= 4
        assert dict(zip(header.split(","), first.split(","), strict=True))["power_w"] == "100.0"
    elif suffix == "json":
        [gpu] = json.loads(path.read_text())["gpus"]
        assert [s["power_w"] for s in gpu["samples"][:3]] == [100, 200, 150]
    else:
        import pyarrow.parquet

        assert pyarrow.parquet.read_table(path)["power_w"][1].as_py() == 200
    assert CliRunner().invoke(profile, args).exit_code == 2


def test_sigterm_ends_a_session_with_what_was_seen(nvml_script, standin_library, tmp_path):
    command = [sys.executable, "-m", "nemotrt", "profile", "gpu", "-o", str(tmp_path / "a.csv")]
    there = os.environ | {"LD_LIBRARY_PATH": str(standin_library.parent)}
    process = subprocess.Popen(command, env=there, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("GPU 0")  # a line a second
    process.terminate()
    _, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert len((tmp_path / "a.csv").read_text().splitlines()) > 5


def test_a_session_whose_gpus_are_lost_ends(nvml_script, tmp_path):
    nvml_script(gpu0_power_mw="100000 100000 !15")
    done = CliRunner().invoke(profile, ["gpu", "-o", str(tmp_path / "a.csv"), "-q"])
    assert done.exit_code == 0, done.output
    assert "2 samples" in done.stdout
    assert "GPU is lost" in done.stdout


def test_the_loader_finds_it_as_on_a_gpu_host(nvml_script, standin_library, tmp_path):
    """A fresh process, with nothing preloaded; and without the library, exit code 3."""
    command = [sys.executable, "-m", "nemotrt", "profile", "gpu", "--duration-s", "0.1", "-q"]
    there = os.environ | {"LD_LIBRARY_PATH": str(standin_library.parent)}
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "a.csv")], env=there, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "GPU 0 A10G" in done.stdout
    done = subprocess.run([*command, "-o", str(tmp_path / "b.csv")], capture_output=True, text=True)
    assert done.returncode in (0, 3)  # 0 on a host with a GPU
    assert done.returncode == 0 or "No GPU figures" in done.stderr


def test_a_gpu_that_shares_the_machines_memory(nvml_script, tmp_path, monkeypatch) -> None:
    """A GB10's driver does not support nvmlDeviceGetMemoryInfo; another failure is no such GPU."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(
        "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    400 kB\nHuge: 0\n"
    )
    monkeypatch.setattr("nemotrt.profiles.hardware.nvml.reading.MEMINFO", meminfo)
    for code, total, used, is_shared in (
        ("!3", 1000 * 1024, 600 * 1024, True),  # NVML_ERROR_NOT_SUPPORTED
        ("!10", None, None, None),  # NVML_ERROR_TIMEOUT
    ):
        nvml_script(nvmlDeviceGetMemoryInfo=code)
        [trace] = record(GpuChoice(), tmp_path / f"{total}.csv", 0.05)
        assert (trace.facts.memory_bytes, trace.facts.is_memory_shared) == (total, is_shared)
        assert trace.samples[0].memory_used_bytes == used
        said = any("no memory of its own" in flag for flag in flags(trace, 0, 1))
        assert said is bool(is_shared)
    meminfo.unlink()
    nvml_script(nvmlDeviceGetMemoryInfo="!3")
    [trace] = record(GpuChoice(), tmp_path / "none.csv", 0.05)
    assert trace.facts.memory_bytes is None
