"""From what the driver recorded to what the result keeps: times since the start of the run."""

import os
import platform
from dataclasses import replace
from importlib.metadata import version

import numpy as np

from nemotrt.profiles.load.driver import LoadRecord
from nemotrt.profiles.load.exchange import Exchange, StepSample
from nemotrt.profiles.load.target import Target
from nemotrt.profiles.runs.record.result import DriverRecord, RequestRecord

# A driver that is busy for more of the time has queues of its own, and time stamps come late.
MAX_DRIVER_BUSY_SHARE = 0.85


def request_record(exchange: Exchange, start_s: float) -> RequestRecord:
    """Return the record of an exchange that was sent or is overdue, to the microsecond."""
    found = {name: getattr(exchange, name) for name in RequestRecord.model_fields}
    return RequestRecord.model_validate(found).moved(lambda at_s: round(at_s - start_s, 6))


def step_records(target: Target, start_s: float) -> tuple[StepSample, ...]:
    """Return the engine's steps, where the target records them."""
    return tuple(
        replace(
            step,
            start_s=round(step.start_s - start_s, 6),
            end_s=round(step.end_s - start_s, 6),
        )
        for step in target.steps
    )


def driver_record(record: LoadRecord, window: tuple[float, float] | None) -> DriverRecord:
    """Return what the driver itself cost in the window (seconds since the start), or the run."""
    if len(record.beats) < 2:
        return DriverRecord(
            name=record.driver, cpu_share=None, loop_lag_p99_ms=None, is_limit=False
        )
    at_s, lates_s, cpu_s, idle_s = np.array(record.beats).T
    start_s, end_s = window or (0.0, record.end_s - record.start_s)
    edges = record.start_s + np.array([start_s, end_s])
    used_s, waited_s = (float(np.diff(np.interp(edges, at_s, y))[0]) for y in (cpu_s, idle_s))
    length_s = max(end_s - start_s, 1e-9)
    inside = lates_s[(at_s >= edges[0]) & (at_s <= edges[1])]
    busy_share = 1 - waited_s / length_s
    return DriverRecord(
        name=record.driver,
        cpu_share=used_s / length_s,
        busy_share=busy_share,
        loop_lag_p99_ms=1e3 * float(np.percentile(inside if inside.size else lates_s, 99)),
        is_limit=busy_share > MAX_DRIVER_BUSY_SHARE,
    )


def driver_cpu_s(record: LoadRecord) -> float | None:
    """Return the driver's CPU time over the run, None where it is not known."""
    return record.beats[-1].cpu_s - record.beats[0].cpu_s if len(record.beats) > 1 else None


def machine_facts() -> dict[str, str | int]:
    """Return what the driver's machine is."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "num_cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "nemotrt": version("nemotrt"),
    }
