"""Agents at once: how many turns an engine serves in a second, and how long they wait."""

from collections.abc import Callable
from dataclasses import dataclass

from nemotrt.profiles.planning.time.play.closed_loop import wait_s

NUM_PASSES = 60  # of a bisection: more than a float tells apart


@dataclass(frozen=True, slots=True)
class Service:
    """What one turn asks of an engine, on average.

    prefill_s: seconds that the engine has for its prompt alone, copies of states in them.
    step_s: seconds of a decode step, by how many requests run.
    num_steps: decode steps.
    slots: requests that may run.
    """

    prefill_s: float
    step_s: Callable[[float], float]
    num_steps: int
    slots: int

    def turn_s(self, running: float) -> float:
        """Return the seconds of a request among `running`: every other is prefilled in them too."""
        return running * self.prefill_s + self.num_steps * self.step_s(running)


@dataclass(frozen=True, slots=True)
class Flow:
    """What agents get: requests that run, turns in a second, and seconds of a turn's parts."""

    running: float
    turns_per_s: float
    ttft_s: float
    tpot_s: float
    queue_s: float


def flow(service: Service, agents: int, think_s: float) -> Flow:
    """Return the steady state of agents who think between their turns.

    A request meets those of the others that are not thinking: with R(n) the seconds of a request
    among n, the others that run are (agents - 1) R / (R + think), which is solved for n. Where n
    passes the slots, these are full, and the rest of the cycle is a queue (the interactive
    response time law).

    Source: Schweitzer's approximation of mean value analysis (1979) of a closed network with one
    shared engine and a think time.
    """

    def met(running: float) -> float:
        turn_s = service.turn_s(running)
        return 1 + (agents - 1) * turn_s / (turn_s + think_s)

    low, high = 1.0, float(min(agents, service.slots))
    is_full = service.slots < agents and met(high) >= high
    for _ in range(0 if is_full else NUM_PASSES):
        middle = (low + high) / 2
        low, high = (middle, high) if met(middle) >= middle else (low, middle)
    running = high
    turn_s = service.turn_s(running)
    # Where the slots are full, they may give the rate: then an agent's cycle has a queue in it.
    turns_per_s, queue_s = agents / (turn_s + think_s), 0.0
    if is_full and running / turn_s < turns_per_s:
        turns_per_s = running / turn_s
        queue_s = agents / turns_per_s - think_s - turn_s
    others_s = (running - 1) * service.prefill_s
    waits = wait_s(service.prefill_s, others_s, turn_s, service.step_s(running))
    ttft_s = min(service.prefill_s + waits, turn_s)
    steps = service.num_steps
    return Flow(
        running=turns_per_s * turn_s,
        turns_per_s=turns_per_s,
        ttft_s=queue_s + ttft_s,
        tpot_s=(turn_s - ttft_s) / steps if steps else 0.0,
        queue_s=queue_s,
    )
