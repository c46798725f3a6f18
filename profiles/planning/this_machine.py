"""The CPU that we run on as a device: memory, bandwidth and GEMM rate, measured in seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

from nemotrt.errors import ChildProcessFailedError, EnvironmentUnfitError
from nemotrt.profiles.gpu_profile import Correction, Corrections, Datasheet, GpuProfile

CACHE_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")
PROBE = "nemotrt.profiles.planning.cpu_probe"
ONNX_RUNTIME_GEMM = (
    "measured, 2-core Zen 3, 2026-11: ONNX Runtime's float32 MatMul does 67 GFLOP/s at 8 rows, "
    "where the probe's BLAS does 166; 151 at 128 rows"
)
NOT_SEPARATE = "not measured apart: the figure above was measured on the same kind of product"
CORRECTIONS = Corrections(
    gemm_bandwidth=Correction(low=0.6, best=0.8, high=1.0, source=NOT_SEPARATE),
    gemm_compute=Correction(low=0.35, best=0.4, high=0.9, source=ONNX_RUNTIME_GEMM),
    attention_bandwidth=Correction(low=0.3, best=0.6, high=1.0, source=NOT_SEPARATE),
    attention_compute=Correction(low=0.2, best=0.5, high=1.0, source=NOT_SEPARATE),
    ssm_bandwidth=Correction(low=0.2, best=0.4, high=1.0, source=NOT_SEPARATE),
    ssm_compute=Correction(low=0.1, best=0.3, high=1.0, source=NOT_SEPARATE),
)


def measure_this_machine() -> GpuProfile:
    """Return this machine's profile, measured in about three seconds.

    Bandwidths are those of a matrix-vector product over a large and over a cached matrix, as a
    decode step reads weights; the rate is that of the cached matrix times 8 vectors. bf16 weights
    are widened in the kernels, so bf16 has the float32 rate. int8 has no rate: nothing measured it.

    Raises:
        EnvironmentUnfitError: the memory size cannot be read (not Linux).
        ChildProcessFailedError: the probe failed.
    """
    memory_mib = _available_mib()
    rates = _probe()
    tflops = float(f"{rates['flops'] / 1e12:.4g}")
    num_cpus = len(os.sched_getaffinity(0))
    source = f"measured by nemotrt.profiles.planning.cpu_probe on {num_cpus} CPUs"
    return GpuProfile(
        name="this-machine",
        title=f"{_cpu_name()}, {num_cpus} CPUs",
        kind="cpu",
        architecture="cpu",
        datasheet=Datasheet(
            memory_mib=memory_mib,
            bandwidth_gb_per_s=round(rates["stream"] / 1e9, 2),
            tflops={"fp32": tflops, "bf16": tflops},
            cache_mib=_cache_mib(),
            cache_bandwidth_gb_per_s=round(rates["cached"] / 1e9, 2),
        ),
        sources={"memory": "MemAvailable of /proc/meminfo", "bandwidth": source, "tflops": source},
        corrections=CORRECTIONS,
    )


def _probe() -> dict[str, float]:
    """Return the probe's rates: bytes and flops a second."""
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    command = [sys.executable, "-m", PROBE]
    run = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True)
    if run.returncode:
        last_lines = "\n".join(run.stderr.splitlines()[-5:])
        raise ChildProcessFailedError(
            f"{' '.join(command)} failed with code {run.returncode}:\n{last_lines}"
        )
    rates: dict[str, float] = json.loads(run.stdout)
    return rates


def _cache_mib() -> float | None:
    """Return the size of the last-level cache, or None where Linux does not say."""
    try:
        texts = [path.read_text() for path in CACHE_FOLDER.glob("index*/size")]
    except OSError:
        return None
    sizes = [int(text.strip().removesuffix("K")) / 1024 for text in texts if "K" in text]
    return max(sizes, default=None)


def _available_mib() -> int:
    """Return the memory that can be had without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = next(line.split()[1] for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration) as error:
        raise EnvironmentUnfitError("--gpu this-machine needs Linux's /proc/meminfo.") from error
    return int(kib) // 1024


def _cpu_name() -> str:
    """Return the CPU's name, or its architecture where Linux does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else os.uname().machine
