"""A result as the few lines that a terminal shows."""

from nemotrt.charts.number import number
from nemotrt.profiles.hardware.nvml.gpu_trace import GpuFacts, GpuSample
from nemotrt.profiles.reports.turns_view import text_table
from nemotrt.profiles.runs.record.result import ProfileResult

# What only some targets and machines tell; its absence is in the report.
OPTIONAL = {
    "queue_ms",
    "goodput_requests_per_s",
    "batch_occupancy",
    "server_queue_ms",
    "server_batch_size",
    "tokens_per_s_per_gpu",
    "gpu_power_w",
    "energy_j",
    "joules_per_token",
    "sessions_per_s",
    "warm_ttft_ms",
    "cold_ttft_ms",
    "cached_tokens",
    "cached_share",
}


def summary_lines(result: ProfileResult) -> list[str]:
    """Return a table of the metrics."""
    load = result.workload
    shape = f"isl {load.isl}, osl {load.osl}"
    shape = load.sessions.text(load.isl, load.osl) if load.sessions else shape
    lines = [
        f"{result.target['kind']} {result.target['address']}: {shape}, "
        f"concurrency {load.concurrency}, {load.num_requests} requests: {result.status}",
        f"{'metric':24}{'unit':>11}{'value/p50':>11}{'p90':>10}{'p99':>10}{'mean':>10}",
    ]
    for name, metric in result.metrics.items():
        head = f"{name:24}{metric.unit:>11}"
        if metric.value is not None:
            lines.append(f"{head}{number(metric.value):>11}")
        elif metric.statistics is not None:
            found = metric.statistics
            columns = (found.p90, found.p99, found.mean)
            lines.append(
                f"{head}{number(found.p50):>11}" + "".join(f"{number(v):>10}" for v in columns)
            )
        elif name not in OPTIONAL:
            lines.append(f"{head} not computable: {metric.not_computable}")
    if result.turns:
        lines += text_table(result.turns)
    if (plan := result.prediction) is not None:
        lines.append(
            f"predicted for {plan.model} on {plan.gpu}: {number(plan.tokens_per_s)} tokens/s "
            f"({number(plan.tokens_per_s_low)} to {number(plan.tokens_per_s_high)}), "
            f"tpot {number(plan.tpot_ms)} ms, ttft {number(plan.ttft_ms)} ms"
        )
    return lines + [f"note: {note}" for note in result.notes]


def sample_line(facts: GpuFacts, sample: GpuSample) -> str:
    """Return a GPU's sample as one line; "-" where the GPU has no such figure."""
    used = sample.memory_used_bytes
    figures = (
        (sample.power_w, "W"),
        (sample.sm_utilization_percent, "% SM"),
        (sample.memory_utilization_percent, "% mem"),
        (None if used is None else round(used / 2**30, 2), "GiB"),
        (sample.sm_clock_mhz, "MHz"),
        (sample.temperature_c, "C"),
    )
    return f"GPU {facts.index}" + "  ".join(
        f"{'-' if value is None else value:>8} {unit}" for value, unit in figures
    )
