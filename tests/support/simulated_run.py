"""Simulated runs of a closed loop whose true times are known."""

import numpy as np

from nemotrt.profiles.runs.metrics.evaluation import evaluate, steady_window
from nemotrt.profiles.runs.metrics.run_view import RunView
from nemotrt.profiles.runs.record.result import (
    DriverRecord,
    ProfileResult,
    RequestRecord,
    Status,
    WorkloadRecord,
)


def simulate(
    seed,
    *,
    speed=1.0,
    users=4,
    osl=64,
    per_user=8,
    noise=0.1,
    drift_noise=0.03,
    drift_memory=0.9,
    ms_per_held_token=0.0,
    **changes,
) -> ProfileResult:
    """A closed loop: each step gives every user a token; a new request stalls all for 5 steps.

    A step takes 10 ms / speed and `ms_per_held_token`, with `noise` of its own and `drift_noise`
    that neighbours share.
    """
    chance = np.random.default_rng(seed)
    now_s, drift, index = 0.0, chance.normal(0, drift_noise), 0
    live, ended = [], []
    last_measured = users * (per_user + 1) - 1
    left = [max(round(osl * (user + 1) / users), 1) for user in range(users)]
    while index <= last_measured or any(r["index"] <= last_measured for r in live):
        while len(live) < users:
            length = left.pop(0) if left else osl
            live.append({"index": index, "osl": length, "due_s": now_s, "arrivals_s": []})
            index += 1
            now_s += 0.05 / speed
        drift *= drift_memory
        drift += chance.normal(0, drift_noise * np.sqrt(1 - drift_memory**2))
        held = sum(10 + len(request["arrivals_s"]) for request in live)
        step_s = (0.01 + ms_per_held_token * held / 1e3) / speed
        now_s += step_s * max(1 + drift + chance.normal(0, noise), 0.1)
        for request in live:
            request["arrivals_s"].append(now_s)
        ended += [r for r in live if len(r["arrivals_s"]) == r["osl"]]
        live = [r for r in live if len(r["arrivals_s"]) < r["osl"]]
    requests = tuple(
        RequestRecord(
            index=r["index"],
            phase=_phase(r["index"], users, last_measured),
            isl=10,
            osl=r["osl"],
            due_s=r["due_s"],
            sent_s=r["due_s"],
            admitted_s=None,
            ended_s=r["arrivals_s"][-1] if len(r["arrivals_s"]) == r["osl"] else None,
            arrivals_s=tuple(r["arrivals_s"]),
            arrival_tokens=(1,) * len(r["arrivals_s"]),
            finish_reason="length",
            error="",
        )
        for r in sorted(ended + live, key=lambda r: r["index"])
    )
    window = steady_window(requests)
    assert window is not None
    view = RunView(requests, (), *window, 0.01)
    values = {
        "status": Status.COMPLETE,
        "reason": "",
        "started_at": "2026-01-01T00:00:00",
        "clock_start_s": None,
        "duration_s": now_s,
        "target": {"kind": "simulated", "address": "-", "model": "m", "precision": "bf16"},
        "workload": WorkloadRecord(
            isl=10,
            osl=osl,
            num_requests=users * per_user,
            concurrency=users,
            num_warmup=users,
            arrival="closed",
            requests_per_s=0.0,
            language="en",
            seed=0,
            slos={},
            trace=(),
        ),
        "window_s": window,
        "metrics": evaluate(view),
        "driver": DriverRecord(cpu_share=0.1, loop_lag_p99_ms=0.1, is_limit=False),
        "machine": {"architecture": "x86_64", "num_cores": 2},
        "notes": (),
        "requests": requests,
        "steps": (),
    }
    return ProfileResult(**(values | changes))


def _phase(index, users, last_measured):
    if index < users:
        return "warm-up"
    return "measured" if index <= last_measured else "cool-down"
