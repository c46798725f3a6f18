"""`nemotrt check --kernels` over stand-ins for CUDA, with the kernels run by the emulator."""

import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nemotrt.build.check import time_limit
from nemotrt.build.check.kernels import device, draws, mamba
from nemotrt.build.check.result.fault import Stage
from nemotrt.build.check.result.rows import KernelCheck
from nemotrt.cli import main
from nemotrt.engines.backends.tensorrt.device import kernel_image
from nemotrt.errors import NemotrtError
from support import cuda_stand_in
from support.emulated_gpu import Driver, Nvrtc

TINY_DRAWS = (draws.DrawCase(300, "likely", 1, 1),)


class Gpu:
    """The stand-ins at cuda-python's modules; a test changes one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.cuda = cuda_stand_in.Cuda()
        self.place("nvrtc", Nvrtc())

    def place(self, name: str, module: Any) -> None:
        """Put a module, or None for one that is not installed, among cuda-python's."""
        setattr(self, name, module)
        self.patch.setitem(sys.modules, f"cuda.bindings.{name}", module)

    def check(self, *options: str) -> Result:
        """Run the command."""
        self.patch.setitem(sys.modules, "cuda.bindings.runtime", self.cuda)
        if "driver" not in vars(self):
            self.place("driver", Driver(self.cuda))
        return CliRunner().invoke(main, ["check", "--kernels", *options])


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gpu]:
    """A GPU of 8.6, and cases that the emulator runs in a moment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kernel_image, "find_nvcc", lambda: None)
    monkeypatch.setattr(mamba, "CASES", mamba.CASES[:2])
    monkeypatch.setattr(draws, "CASES", TINY_DRAWS)
    monkeypatch.setattr(draws, "BATCHES", ())
    monkeypatch.setattr(device, "MAX_REPEATS", 1)
    yield Gpu(monkeypatch)


def test_right_kernels_pass(gpu: Gpu, tmp_path: Path) -> None:
    ran = gpu.check("--json")
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    kernels = {row["kernel"] for row in found["kernels"]["rows"]}
    assert kernels == {"causal_conv", "ssd_decode", "ssd_prefill", "draws", "feed_tokens"}
    assert found["exit_code"] == 0 and found["kernels"]["faults"] == []
    assert not gpu.cuda.device and not gpu.cuda.host
    assert not list(tmp_path.iterdir())


def fault_of(ran: Result) -> str:
    """The one line that a person sees of what is wrong."""
    [line] = [one for one in ran.stderr.splitlines() if one.split(":")[0] in set(Stage)]
    return line


@pytest.mark.slow  # each compiles kernels anew
@pytest.mark.parametrize(
    ("right", "wrong", "kernel"),
    [
        ("1.0f + expf(-value)", "1.01f + expf(-value)", "causal_conv"),
        ("sequence, 1) > 0", "sequence, 1) >= 0", "ssd_decode"),
        ("distance < 32", "distance < 16", "ssd_prefill"),
        ("0xCA5A826395121157ull", "0xCA5A826395121158ull", "draws"),
        ("ids[i] = tokens[slots[i]]", "ids[i] = tokens[i]", "feed_tokens"),
    ],
)
def test_one_wrong_constant_is_found(
    right: str, wrong: str, kernel: str, gpu: Gpu, tmp_path: Path
) -> None:
    changed = []

    def change(text: str) -> str:
        changed.append(text.count(right))
        return text.replace(right, wrong)

    gpu.place("nvrtc", Nvrtc(change))
    ran = gpu.check("--json")
    assert sum(changed) >= 1 and ran.exit_code == 1
    found = json.loads(ran.stdout)
    assert {fault["stage"] for fault in found["faults"]} == {"compare"}
    wrong_rows = {
        row["kernel"]
        for row in found["kernels"]["rows"]
        if not all(item["is_right"] for item in row["comparisons"])
    }
    assert wrong_rows == {kernel}
    assert f"compare: {kernel} (" in ran.stderr
    assert json.loads((tmp_path / "nemotrt-check.json").read_text()) == found


def test_a_gpu_of_7_5_is_refused(gpu: Gpu) -> None:
    gpu.patch.setattr(gpu.cuda, "CAPABILITY", (7, 5))
    ran = gpu.check()
    assert ran.exit_code == 3
    assert fault_of(ran).startswith("GPU: compute capability 7.5 is below 8.0. Run this on")


@pytest.mark.slow  # the emulator takes its time with real widths
def test_real_sizes_are_right_too(gpu: Gpu) -> None:
    cases = [mamba.MambaCase(mamba.NINE_B, lengths) for lengths in ((1, 0), (40,))]
    gpu.patch.setattr(mamba, "CASES", cases)
    gpu.patch.setattr(draws, "CASES", (draws.DrawCase(draws.REAL, "likely"),))
    ran = gpu.check()
    assert ran.exit_code == 0, ran.output


@pytest.mark.parametrize("name", ["runtime", "driver", "nvrtc"])
def test_without_a_module_of_cuda_python(name: str, gpu: Gpu) -> None:
    if name == "runtime":
        gpu.cuda = None
    else:
        gpu.place(name, None)
    ran = gpu.check()
    assert ran.exit_code == 3
    stage = "compiler" if name == "nvrtc" else "cuda-python"
    assert fault_of(ran).startswith(f"{stage}: ") and "pip install" in fault_of(ran)


def test_without_a_driver(gpu: Gpu) -> None:
    gpu.patch.setattr(gpu.cuda, "cudaSetDevice", lambda device: (35,))
    ran = gpu.check()
    assert ran.exit_code == 3
    assert fault_of(ran).startswith("driver: cudaSetDevice failed") and "nvidia-smi" in ran.stderr


def test_without_memory(gpu: Gpu) -> None:
    gpu.patch.setattr(gpu.cuda, "total_bytes", 40_000)
    ran = gpu.check()
    assert ran.exit_code == 3
    assert "memory: the GPU has too little free memory for Mamba kernels" in ran.stderr
    assert "Free the GPU's memory" in ran.stderr


def test_a_compiler_that_refuses(gpu: Gpu) -> None:
    gpu.patch.setattr(Nvrtc, "STATUS", 6)
    ran = gpu.check()
    assert ran.exit_code == 2 and "does not compute right" not in ran.stdout
    assert "Please send" in ran.stderr
    assert fault_of(ran).startswith("compile: nvrtcCompileProgram failed: 6. line 7: a fault")


@pytest.mark.parametrize(
    ("call", "stage", "code"),
    [
        ("cuLibraryLoadData", "load", 2),
        ("cuLibraryGetKernel", "load", 2),
        ("cuLaunchKernel", "launch", 1),
    ],
)
def test_a_driver_call_that_fails(
    call: str, stage: str, code: int, gpu: Gpu, tmp_path: Path
) -> None:
    gpu.place("driver", Driver(gpu.cuda))
    gpu.patch.setattr(gpu.driver, call, lambda *_: (719, None))
    ran = gpu.check()
    assert ran.exit_code == code
    assert ("does not compute right" in ran.stdout) == (stage == "launch")
    assert fault_of(ran).startswith(f"{stage}: {call} failed: 719")
    sent = tmp_path / "nemotrt-check.json"
    assert f"Please send {sent} to the maintainers" in ran.stderr
    assert json.loads(sent.read_text())["faults"][0]["stage"] == stage


def test_a_report_goes_elsewhere_only_where_it_must(
    gpu: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    gpu.patch.setattr(Nvrtc, "STATUS", 6)
    assert "Please send" in gpu.check().stderr and list(temporary.iterdir()) == []
    (tmp_path / "nemotrt-check.json").unlink()
    (tmp_path / "nemotrt-check.json").mkdir()  # no file can be there
    ran = gpu.check()
    [folder] = temporary.iterdir()
    assert f"Please send {folder / 'nemotrt-check.json'}" in ran.stderr


LACKING = {"out of memory": 2, "busy": 46, "no GPU": 100, "another driver's library": 803}


@pytest.mark.parametrize("status", LACKING.values(), ids=LACKING)
@pytest.mark.parametrize("call", ["cuLibraryLoadData", "cuLaunchKernel"])
def test_a_gpu_that_is_busy_or_full_is_lacking(call: str, status: int, gpu: Gpu) -> None:
    gpu.place("driver", Driver(gpu.cuda))
    gpu.patch.setattr(gpu.driver, call, lambda *_: (status, None))
    ran = gpu.check()
    assert ran.exit_code == 3 and "does not compute right" not in ran.stdout


@pytest.mark.parametrize(
    "call", ["cudaSetDevice", "cudaStreamCreate", "cudaMalloc", "cudaMallocHost", "cudaMemcpyAsync"]
)
@pytest.mark.parametrize("status", LACKING.values(), ids=LACKING)
def test_so_it_is_at_every_call_of_the_runtime(call: str, status: int, gpu: Gpu) -> None:
    gpu.patch.setattr(gpu.cuda, call, lambda *_: (status, None))
    ran = gpu.check()
    assert ran.exit_code == 3 and "does not compute right" not in ran.stdout


def test_no_call_works_after_a_launch_that_fails_late(gpu: Gpu) -> None:
    """As on a GPU: an illegal address shows when the stream is waited for, and ever after."""
    num_calls = 0

    def synchronize(stream: int) -> tuple[int]:
        nonlocal num_calls
        num_calls += 1
        return (0,) if num_calls == 1 else (700,)

    gpu.patch.setattr(gpu.cuda, "cudaStreamSynchronize", synchronize)
    ran = gpu.check()
    assert ran.exit_code == 1
    assert fault_of(ran).startswith("launch: cudaStreamSynchronize failed")


def test_kernels_that_never_end(gpu: Gpu, tmp_path: Path) -> None:
    """The process ends at the limit, whatever waits; here the wait ends with it."""
    ended = threading.Event()

    def synchronize(stream: int) -> tuple[int]:
        return (700,) if ended.wait(60) else (0,)

    def leave(code: int) -> None:
        assert code == 1
        ended.set()

    gpu.patch.setattr(time_limit.os, "_exit", leave)
    gpu.patch.setattr(gpu.cuda, "cudaStreamSynchronize", synchronize)
    found = KernelCheck()
    with time_limit.in_time(found, lambda text: None, 0.1) as tell:
        tell("Mamba kernels, small")
        with pytest.raises(NemotrtError), device.device(gpu.cuda) as cuda:
            cuda.synchronize()
    sent = json.loads((tmp_path / "nemotrt-check.json").read_text())
    assert sent["faults"][-1]["what"] == "Mamba kernels, small: no end after 0.1 s."
    assert sent["exit_code"] == 1


def test_without_nvml_the_kernels_are_checked(gpu: Gpu) -> None:
    ran = gpu.check("-o", "page.html")
    assert ran.exit_code == 0
    assert "nvml       the NVIDIA driver is not installed" in ran.stdout
    page = Path("page.html").read_text()
    assert "Computed right here: our CUDA kernels (A10G)" in page and "ssd_prefill" in page
    assert gpu.check("-o", "page.html").exit_code == 2


def test_times_are_beside_a_copy_s(gpu: Gpu) -> None:
    gpu.patch.setattr(mamba, "NINE_B", mamba.SMALL)
    gpu.patch.setattr(mamba, "CASES", (mamba.MambaCase(mamba.SMALL, (1, 1)),))
    gpu.patch.setattr(draws, "REAL", 300)
    gpu.patch.setattr(draws, "BATCHES", (2,))
    gpu.patch.setattr(draws, "TIMED_STEPS", 3)
    ran = gpu.check("--json", "-o", "page.html")
    assert ran.exit_code == 0, ran.output
    rows = json.loads(ran.stdout)["kernels"]["rows"]
    timed = {(row["kernel"], row["case"]) for row in rows if row["timing"]}
    assert {("causal_conv", "9B"), ("ssd_decode", "9B"), ("draws", "logprobs 5")} <= timed
    for row in rows:
        if time := row["timing"]:
            assert time["copy_share"] == pytest.approx(time["copy_us"] / time["us"])
            assert time["gb_per_s"] == pytest.approx(time["moved_bytes"] / time["us"] / 1e3)
    assert "Bandwidth beside a copy" in Path("page.html").read_text()


def test_the_work_is_bounded_by_its_size() -> None:
    """On a GPU of 100 GB/s, a tenth of it used, every measurement together ends in two minutes."""
    moved = 0
    for case in mamba.CASES:
        dims, batch, tokens = case.dims, len(case.lengths), max(case.lengths)
        state = 4 * batch * dims.inner_size * dims.state_size
        each = 2 * state + batch * tokens * (2 * dims.channels + 4 * dims.inner_size)
        repeats = min(device.MAX_REPEATS, max(device.MIN_REPEATS, device.MEASURED_BYTES // each))
        moved += 4 * repeats * each if case.is_timed else each
    assert moved / 10e9 < 120
