"""Every NVML call fails with every code of nvml.h: a figure is missing, nothing else is."""

import importlib.metadata
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.backends.protocol.local_gpu import local_compute_capability
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.profiles.hardware.exporter.gpu_gauges import GpuGauges
from nemotrt.profiles.hardware.gpu_choice import GpuChoice
from nemotrt.profiles.hardware.nvml.device import select_devices
from nemotrt.profiles.hardware.nvml.inventory import Gpu, find_gpus
from nemotrt.profiles.hardware.nvml.library import nvml_session
from nemotrt.profiles.hardware.nvml.session import record
from nemotrt.profiles.hardware.nvml.watch import watching

LOST = {"NVML_ERROR_GPU_IS_LOST", "NVML_ERROR_RESET_REQUIRED"}
WHOLE = {  # what the script of the other tests leaves out
    "0.power_mw": "100000",
    "0.power_instant_mw": "100000",
    "0.mig_mode": "1",
    "0.application_clock": "1400",
    "0.pcie_generation": "4",
    "0.pcie_width": "16",
    "0.compute_capability": "86",
    "0.old_temperature": "55",
    "0.old_throttle": "4",
    "0.throttle": "4",
    "0.num_processes_filled": "2",
    # a step a call, so that no sample finds the counter where it was
    "0.energy_mj": " ".join(str(1000 * k) for k in range(1, 2000)),
}
VARYING = {"at_s", "energy_mj"}


def _header() -> str:
    files = importlib.metadata.files("nvidia-nvml-dev") or []
    return Path(str(next(f for f in files if f.name == "nvml.h").locate())).read_text()


CODES = {
    name: int(value)
    for name, value in re.findall(r"(NVML_ERROR_\w+)\s*=\s*(\d+),?\s*//", _header())
}
# Where a device comes from; every other function gives figures.
SOURCES = {"nvmlInitWithFlags", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2"}


def called_functions(nvml_script, path: Path) -> list[str]:
    """Return the functions that reach the library when everything is asked."""
    nvml_script(**WHOLE, calls=str(path))
    find_gpus()
    GpuGauges().text()
    look()
    for script in ({"nvmlDeviceGetTemperatureV": "!13"}, {"0.throttle": "!13"}):
        nvml_script(**WHOLE | script | {"0.power_instant_mw": None}, calls=str(path))
        look()
    return sorted(set(path.read_text().split()))


def look():
    with watching(GpuChoice(rate_hz=100)) as watch:
        pass  # a last sample is taken at the end
    return watch.absence, watch.traces(0.0)


def test_the_codes_are_the_headers() -> None:
    assert len(CODES) == _header().count("NVML_ERROR_UNKNOWN = 999") * 31 == 31
    assert set(CODES) > LOST


def test_each_call_with_each_code(
    nvml_script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what stands in for a GPU's memory has a test of its own
    monkeypatch.setattr("nemotrt.profiles.hardware.nvml.reading.MEMINFO", tmp_path / "none")
    functions = called_functions(nvml_script, tmp_path / "calls.txt")
    assert {*SOURCES, "nvmlShutdown", "nvmlDeviceGetTemperature"} <= set(functions)
    assert len(functions) > 25
    nvml_script(**WHOLE)
    _, [whole] = look()
    [whole_gpu], _ = find_gpus()
    assert local_compute_capability() == "8.6"
    for function in functions:
        for name, code in CODES.items():
            nvml_script(**WHOLE, **{function: f"!{code}"})
            context = f"{function} fails with {name}"
            check_look(function, name, whole, context)
            check_inventory(function, whole_gpu, context)
            assert local_compute_capability() in ("8.6", None), context
            text = GpuGauges().text()
            values = [float(line.split()[-1]) for line in text.splitlines() if line[0] != "#"]
            assert all(value > 0 for value in values), context  # never 0 for "not told"


def check_look(function: str, name: str, whole, context: str) -> None:
    absence, traces = look()
    if function in SOURCES:
        assert absence and not traces, context
        assert ("does not answer" in absence) == (
            name in LOST and function == "nvmlDeviceGetHandleByIndex_v2"
        ), context
        return
    assert absence == "", context
    [trace] = traces
    can_be_lost = name in LOST and function not in ("nvmlShutdown", *UNASKED)
    assert bool(trace.lost) == can_be_lost, (context, trace.lost)
    check_equal_or_none(whole.facts.model_dump(), trace.facts.model_dump(), context)
    for sample in trace.samples:
        check_equal_or_none(whole.samples[-1].model_dump(), sample.model_dump(), context)
    assert trace.samples or trace.lost, context


# asked only by doctor, or only where another function has failed
UNASKED = {
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetPowerUsage",
}


def check_equal_or_none(whole: dict, found: dict, context: str) -> None:
    for key, value in found.items():
        if key not in VARYING and key != "power_source":
            assert value is None or value == whole[key], (context, key, value)


def check_inventory(function: str, whole: Gpu, context: str) -> None:
    gpus, note = find_gpus()
    assert gpus or note, context
    for gpu in gpus:
        for field in ("name", "memory_bytes", "compute_capability"):
            assert getattr(gpu, field) in (None, getattr(whole, field)), (context, field)
        assert "None" not in str(gpu), context


@pytest.mark.parametrize("code", [4, 15, 26, 999])
def test_the_nth_call_fails(nvml_script, tmp_path: Path, code: int) -> None:
    """Each call in turn, and only that one: what is asked again comes back."""
    path = tmp_path / "calls.txt"
    nvml_script(**WHOLE, calls=str(path))
    look()
    num_calls = len(path.read_text().split())
    for n in range(num_calls):
        nvml_script(**WHOLE, nth=f"{n} {code}")
        absence, traces = look()
        if absence:
            assert not traces
            continue
        [trace] = traces
        assert trace.samples or trace.lost
        assert bool(trace.lost) == (code == 15 and n < num_calls - 1)  # the last is nvmlShutdown


@pytest.mark.parametrize(
    "name",
    [
        "GPU_IS_LOST",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("NO_PERMISSION", "DEPRECATED", "UNKNOWN")
        ),
    ],
)
def test_the_commands_say_what_is_missing(nvml_script, tmp_path: Path, name: str) -> None:
    functions = called_functions(nvml_script, tmp_path / "calls.txt")
    code = CODES[f"NVML_ERROR_{name}"]
    for function in functions:
        nvml_script(**WHOLE, **{function: f"!{code}"})
        args = ["profile", "gpu", "--duration-s", "0.1", "-o", str(tmp_path / "gpu.csv"), "--force"]
        done = CliRunner().invoke(main, args)
        is_all = function in SOURCES or (name == "GPU_IS_LOST" and function != "nvmlShutdown")
        assert done.exit_code in ((0, 3) if is_all else (0,)), (function, done.output)
        assert done.exception is None or isinstance(done.exception, SystemExit), function
        assert "Traceback" not in done.output and "None" not in done.output, function


def test_doctor_of_a_gpu_without_memory_of_its_own(nvml_script) -> None:
    """A GB10 shares the system's memory: nvmlDeviceGetMemoryInfo is not supported there."""
    script = {"0.name": "NVIDIA-GB10", "0.compute_capability": "121", "0.memory_used": None}
    nvml_script(**script)
    done = CliRunner().invoke(main, ["doctor", "--json"])
    assert done.exit_code == 0, done.output
    [gpu] = json.loads(done.stdout)["gpus"]
    assert gpu == {"name": "NVIDIA-GB10", "memory_bytes": None, "compute_capability": "12.1"}
    shown = CliRunner().invoke(main, ["doctor"])
    assert "NVIDIA-GB10, memory not told, 12.1" in shown.stdout
    assert "measure the GPU (NVML)" in shown.stdout


def test_doctor_without_a_gpu(nvml_script) -> None:
    for script, note in [({"init": "9"}, "not loaded"), ({"gpus": "0"}, "sees no GPU")]:
        nvml_script(**script)
        found = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
        assert found["gpus"] == [] and note in found["gpu_note"]
        usable = {ability["name"]: ability["is_usable"] for ability in found["abilities"]}
        assert not usable["run plans here (tensorrt)"] and not usable["measure the GPU (NVML)"]


def test_one_gpu_of_two_that_may_not_be_asked(nvml_script, tmp_path: Path) -> None:
    nvml_script(**WHOLE, gpus="2", nvmlDeviceGetHandleByIndex_v2="ok !4")
    with nvml_session() as nvml:
        found = select_devices(nvml)
    assert [device.index for device in found.devices] == [0]
    assert found.absence == "GPU 1 can't be asked: Insufficient Permissions."
    absences: list[str] = []
    nvml_script(**WHOLE, gpus="2", nvmlDeviceGetHandleByIndex_v2="ok !15")
    [trace] = record(GpuChoice(), tmp_path / "a.csv", 0.05, on_absence=absences.append)
    assert trace.facts.index == 0 and trace.samples
    assert absences == ["GPU 1 does not answer: GPU is lost."]
    with nvml_session() as nvml, pytest.raises(EnvironmentUnfitError, match="GPU 1"):
        nvml_script(**WHOLE, gpus="2", nvmlDeviceGetHandleByIndex_v2="!4")
        nvml.nvmlInit()  # reads the script anew
        select_devices(nvml, ("1",))


def test_without_gpus_there_is_nothing_to_record(nvml_script, tmp_path: Path) -> None:
    nvml_script(gpus="0")
    args = ["profile", "gpu", "--duration-s", "1", "-o", str(tmp_path / "a.csv")]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 3 and "sees no GPU" in done.output
    assert not (tmp_path / "a.csv").exists()


def test_a_name_that_is_no_text_is_not_told(nvml_script) -> None:
    nvml_script(**WHOLE, **{"0.name": "A10\udcff"})
    [gpu], note = find_gpus()
    assert (gpu.name, note) == (None, "")
