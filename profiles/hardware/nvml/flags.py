"""What spoils a run: throttling, other processes, moving clocks, a lost GPU."""

from nemotrt.profiles.hardware.nvml.gpu_trace import GpuSample, GpuTrace
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
    if _did_nothing(samples):
        found.append(
            f"{who} did nothing: name the server's GPUs with --gpu, or this one's energy counts."
        )
    if trace.facts.is_mig:
        found.append(f"{who}: power and energy are the whole GPU's, not the MIG instance's.")
    if trace.facts.is_persistence_on is False:
        found.append(f"{who}: persistence mode is off; set it with `nvidia-smi -pm 1`.")
    return found


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
