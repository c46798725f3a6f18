"""From what the driver recorded to what the result keeps: times since the start of the run."""

import os
import platform
from importlib.metadata import version

import numpy as np

from nemotrt.profiles.load.driver import LoadRecord
from nemotrt.profiles.load.exchange import Exchange
from nemotrt.profiles.result import DriverRecord, RequestRecord, StepRecord
from nemotrt.profiles.targets.in_process import InProcessTarget
from nemotrt.profiles.targets.target import Target

# Above this share of a core the event loop queues up and time stamps come late.
MAX_DRIVER_CPU_SHARE = 0.85


def request_record(exchange: Exchange, start_s: float) -> RequestRecord:
    """Return the record of an exchange that was sent or is overdue, to the microsecond."""

    def since(time_s: float | None) -> float | None:
        return None if time_s is None else round(time_s - start_s, 6)

    assert exchange.due_s is not None  # the caller leaves out the others
    return RequestRecord(
        index=exchange.index,
        phase=exchange.phase.value,
        isl=exchange.isl,
        osl=exchange.osl,
        due_s=round(exchange.due_s - start_s, 6),
        sent_s=since(exchange.sent_s),
        admitted_s=since(exchange.admitted_s),
        ended_s=since(exchange.ended_s),
        arrivals_s=tuple(round(arrived_s - start_s, 6) for arrived_s in exchange.arrivals_s),
        arrival_tokens=tuple(exchange.arrival_tokens),
        finish_reason=exchange.finish_reason,
        error=exchange.error,
    )


def step_records(target: Target, start_s: float) -> tuple[StepRecord, ...]:
    """Return the engine's steps, where the target records them."""
    if not isinstance(target, InProcessTarget):
        return ()
    return tuple(
        StepRecord(
            start_s=round(step.start_s - start_s, 6),
            end_s=round(step.end_s - start_s, 6),
            num_running=step.num_running,
            num_waiting=step.num_waiting,
        )
        for step in target.steps
    )


def driver_record(record: LoadRecord) -> DriverRecord:
    """Return what the driver itself cost."""
    share = record.cpu_s / max(record.end_s - record.start_s, 1e-9)
    lags_s = record.loop_lag_s or [0.0]
    return DriverRecord(
        cpu_share=share,
        loop_lag_p99_ms=1e3 * float(np.percentile(lags_s, 99)),
        is_limit=share > MAX_DRIVER_CPU_SHARE,
    )


def machine_facts() -> dict[str, str | int]:
    """Return what the driver's machine is."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "num_cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "nemotrt": version("nemotrt"),
    }
