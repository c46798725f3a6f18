"""The real nvidia-ml-py against a stand-in library: every figure, every fault."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.profiles.command import profile
from nemotrt.profiles.hardware.gpu_choice import GpuChoice
from nemotrt.profiles.hardware.nvml.device import select_devices
from nemotrt.profiles.hardware.nvml.flags import flags
from nemotrt.profiles.hardware.nvml.gpu_trace import GpuSample
from nemotrt.profiles.hardware.nvml.library import nvml_session
from nemotrt.profiles.hardware.nvml.reading import read_facts, read_sample
from nemotrt.profiles.hardware.nvml.session import record
from nemotrt.profiles.hardware.nvml.watch import watching
from nemotrt.profiles.runs.record.result import read_result
from support.nvml_samples import sample_for

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
