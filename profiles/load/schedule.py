"""The requests of a run in order, and when each is due."""

import itertools
import random
from collections.abc import Iterator

from nemotrt.profiles.load.exchange import Exchange, Phase
from nemotrt.profiles.load.workload import Arrival, Workload


def schedule(workload: Workload) -> Iterator[tuple[float, Exchange]]:
    """Yield seconds since the start and a request: warm-up, measured, then cool-down.

    Without a pace of its own the load is a closed loop; then every request is due at once, and
    cool-down never ends. A trace has no cool-down: what comes after it is unknown.
    """
    if workload.arrival is Arrival.TRACE:
        for index, entry in enumerate(workload.trace):
            phase = Phase.WARM_UP if index < workload.num_warmup else Phase.MEASURED
            yield entry.due_s, Exchange(index, phase, entry.isl, entry.osl)
        return
    for index, due_s in zip(itertools.count(), _due_times(workload), strict=False):
        measured = index - workload.num_warmup
        phase, osl = Phase.MEASURED, workload.osl
        if measured < 0:
            phase, osl = Phase.WARM_UP, workload.warmup_osl(index)
        elif measured >= workload.num_requests:
            phase = Phase.COOL_DOWN
        yield due_s, Exchange(index, phase, workload.isl, osl)


def warm_up_and_measured(workload: Workload) -> list[tuple[float, Exchange]]:
    """Return the schedule without cool-down."""
    count = workload.num_warmup + num_measured(workload)
    return list(itertools.islice(schedule(workload), count))


def num_measured(workload: Workload) -> int:
    """Return how many measured requests the schedule has."""
    if workload.trace:
        return max(len(workload.trace) - workload.num_warmup, 0)
    return workload.num_requests


def _due_times(workload: Workload) -> Iterator[float]:
    """Yield seconds since the start, without end."""
    if workload.arrival is Arrival.CLOSED:
        yield from itertools.repeat(0.0)
    chance = random.Random(f"arrivals:{workload.seed}")
    due_s = 0.0
    while True:
        yield due_s
        if workload.arrival is Arrival.POISSON:
            due_s += chance.expovariate(workload.requests_per_s)
        else:
            due_s += 1 / workload.requests_per_s
