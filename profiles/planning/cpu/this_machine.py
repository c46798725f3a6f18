"""The CPU that we run on as a device: bandwidth and GEMM rate of our engine's own kernels."""

import json
import os
import subprocess
import sys
from pathlib import Path

from nemotrt.engines.backends import registry
from nemotrt.engines.model.numerics import BUILT, Precision
from nemotrt.errors import ChildProcessFailedError, ConfigError, EnvironmentUnfitError
from nemotrt.files.memory import available_bytes
from nemotrt.profiles.hardware.gpu_profile import GpuProfile
from nemotrt.profiles.planning.cpu.cpu_cache import last_level_cache_mib
from nemotrt.profiles.planning.cpu.cpu_rates import Timings, cpu_profile
from nemotrt.profiles.planning.cpu.rates_profile import Machine

PROBE = "nemotrt.profiles.planning.cpu.cpu_probe"
BUSY_SHARE = 0.5  # of the CPUs, by the load average; a plan says when it was measured above that


def measure_this_machine(engine: str | None, precision: Precision) -> GpuProfile:
    """Return this machine's profile for an engine and a precision, measured in some seconds.

    Without an engine, it is what a build takes on this machine.

    Raises:
        ConfigError: no CPU engine of that name, or it has no such precision.
        EnvironmentUnfitError: the memory size cannot be read (not Linux).
        ChildProcessFailedError: the probe failed.
    """
    engines = registry.cpu_names()
    if engine not in (None, *engines):
        raise ConfigError(
            f"engine {engine} does not run on this machine's CPU; choose {', '.join(engines)}."
        )
    precisions = cpu_precisions()
    if precision not in precisions:
        raise ConfigError(
            f"no CPU engine runs {precision}; choose {', '.join(p.value for p in precisions)}."
        )
    name = engine or _default_engine()
    num_cpus = len(os.sched_getaffinity(0))
    title, busy = f"{_cpu_name()}, {num_cpus} CPUs", os.getloadavg()[0]
    notes = f"measured while {busy:.1f} processes ran on {num_cpus} CPUs: too slow by as much"
    is_busy = busy > BUSY_SHARE * num_cpus
    machine = Machine(title, available_mib(), last_level_cache_mib(), notes if is_busy else "")
    return cpu_profile(machine, name, precision, _probe(name, precision))


def cpu_precisions() -> tuple[Precision, ...]:
    """Return the precisions that a CPU engine has of any checkpoint."""
    backends = [registry.find(name) for name in registry.cpu_names()]
    return tuple(p for p in BUILT if any(b.supports(None, p) is None for b in backends))


def _default_engine() -> str:
    """Return the engine that a build takes here."""
    from nemotrt.engines.backends.registry import default_cpu_backend

    return default_cpu_backend()[0]


def _probe(engine: str, precision: Precision) -> Timings:
    """Return the probe's timings, from a process of its own."""
    command = [sys.executable, "-m", PROBE, engine, precision.value]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        last_lines = "\n".join(run.stderr.splitlines()[-5:])
        raise ChildProcessFailedError(
            f"{' '.join(command)} failed with code {run.returncode}:\n{last_lines}"
        )
    timings: Timings = json.loads(run.stdout)
    return timings


def available_mib() -> int:
    """Return the memory that can be had without swapping."""
    available = available_bytes()
    if available is None:
        raise EnvironmentUnfitError("--gpu this-machine needs Linux's /proc/meminfo.")
    return available >> 20


def _cpu_name() -> str:
    """Return the CPU's name, or its architecture where Linux does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else os.uname().machine
