"""What spoils a run: throttling, other processes, moving clocks, a lost GPU."""

from nemotrt.profiles.hardware.nvml.gpu_trace import EnergySource, GpuSample, GpuTrace
from nemotrt.profiles.hardware.nvml.processes import programs

# Source: nvml.h, nvmlClocksEventReason*. Idle and the user's own clock setting spoil nothing.
THROTTLE_REASONS = {
    0x4: "the power cap",
    0x8: "a hardware slowdown",
    0x10: "sync boost",
    0x20: "a software thermal slowdown",
    0x40: "a hardware thermal slowdown",
    0x80: "the external power brake",
    0x200: "the board's limit",
    0x400: "the reliability voltage",
}
# Clocks that are locked stay within one step (15 MHz) of each other.
MAX_LOCKED_SPREAD_MHZ = 15
# Counter and integral agree to the accuracy that NVIDIA gives power, 5 %; in a shorter window the
# counter's steps, and what lies between two samples of the power, are more.
# Source: nvml.h, nvmlDeviceGetPowerUsage: "within +/-5% of current power draw" (Fermi and Kepler).
MAX_ENERGY_GAP, MIN_ENERGY_WINDOW_S = 0.05, 2.0


def flags(trace: GpuTrace, start_s: float, end_s: float) -> list[str]:
    """Return a sentence for each thing that spoils [start_s, end_s]."""
    samples = trace.between(start_s, end_s)
    who = f"GPU {trace.facts.index}"
    found = [f"{who}: {trace.lost}"] if trace.lost else []
    found += [f"{who} was throttled by {text}." for text in _throttling(samples)]
    found_programs = programs(pid for sample in samples for pid in sample.pids or ())
    if len(found_programs) > 1:
        found.append(f"{who} ran {len(found_programs)} programs: {'; '.join(found_programs)}.")
    clocks = trace.busy_clocks_mhz(start_s, end_s)
    if clocks is not None and clocks[1] - clocks[0] > MAX_LOCKED_SPREAD_MHZ:
        found.append(
            f"{who}: the SM clock moved from {clocks[0]} to {clocks[1]} MHz under load; lock "
            "it with `nvidia-smi -lgc`."
        )
    if trace.has_still_counter(start_s, end_s):
        energy = trace.energy(start_s, end_s)
        instead = "there is no energy" if energy is None else f"the energy is {energy.source}"
        found.append(f"{who}: its energy counter stood still; {instead}.")
    found += [f"{who}: {text}" for text in _faults(trace, samples, end_s - start_s)]
    if _did_nothing(samples):
        found.append(
            f"{who} did nothing: name the server's GPUs with --gpu, or this one's energy counts."
        )
    if trace.facts.is_memory_shared:
        found.append(f"{who} has no memory of its own: what is told is the machine's.")
    if trace.facts.is_mig:
        found.append(f"{who}: power and energy are the whole GPU's, not the MIG instance's.")
    if trace.facts.is_persistence_on is False:
        found.append(f"{who}: persistence mode is off; set it with `nvidia-smi -pm 1`.")
    return found


def _faults(trace: GpuTrace, samples: tuple[GpuSample, ...], window_s: float) -> list[str]:
    """Return what failed, and which two ways to the energy disagree."""
    found = []
    if trace.failures:
        kinds = ", ".join(f"{reason} ({count})" for reason, count in trace.failures.items())
        found.append(f"queries failed, whose figures are missing: {kinds}.")
    for name, what in (("ecc_errors", "uncorrected memory errors"), ("pcie_replays", "replays")):
        counts = [c for sample in samples if (c := getattr(sample, name)) is not None]
        if counts and counts[-1] > counts[0]:
            where = " of its PCIe link" if name == "pcie_replays" else ""
            found.append(f"{counts[-1] - counts[0]} {what}{where} came in the window.")
    width, most = trace.facts.pcie_width, trace.facts.max_pcie_width
    if width is not None and most is not None and width < most:
        found.append(f"its PCIe link has {width} of {most} lanes.")
    return found + (_energy_gap(trace, samples) if window_s >= MIN_ENERGY_WINDOW_S else [])


def _energy_gap(trace: GpuTrace, samples: tuple[GpuSample, ...]) -> list[str]:
    """Return in what the energy counter and the integrated power disagree."""
    if len(samples) < 2:
        return []
    start_s, end_s = samples[0].at_s, samples[-1].at_s
    counted, summed = trace.energy(start_s, end_s), trace.integral(start_s, end_s)
    if counted is None or summed is None or counted.source is not EnergySource.COUNTER:
        return []
    gap = summed.joules / counted.joules - 1
    if abs(gap) <= MAX_ENERGY_GAP:
        return []
    return [
        f"its energy counter says {counted.joules:.0f} J, its power integrated "
        f"{summed.joules:.0f} J ({gap:+.0%}): one of the two is wrong."
    ]


def _did_nothing(samples: tuple[GpuSample, ...]) -> bool:
    """Return whether the GPU had neither work nor a process in all samples that tell."""
    shares = [s.sm_utilization_percent for s in samples if s.sm_utilization_percent is not None]
    return len(shares) > 1 and not any(shares) and not any(sample.pids for sample in samples)


def _throttling(samples: tuple[GpuSample, ...]) -> list[str]:
    """Return each reason with its share of the samples."""
    reasons = [s.throttle_reasons for s in samples if s.throttle_reasons is not None]
    texts = []
    for bit, text in THROTTLE_REASONS.items():
        count = sum(bool(value & bit) for value in reasons)
        if count:
            texts.append(f"{text} in {count} of {len(reasons)} samples")
    return texts
