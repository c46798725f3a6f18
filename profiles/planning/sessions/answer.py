"""What the planner answers of sessions, as one record."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from nemotrt.errors import ConfigError, NoFeasiblePlanError
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.plan import Range
from nemotrt.profiles.planning.answers.search import LatencyTarget
from nemotrt.profiles.planning.memory.capacity import GIB
from nemotrt.profiles.planning.sessions.kept import KeptMemory, kept_memory, snapshot_interval
from nemotrt.profiles.planning.sessions.load import SessionLoad
from nemotrt.profiles.planning.sessions.rate import Flow, Service, flow
from nemotrt.profiles.planning.sessions.turns import LINK_SHARE, Turns, TurnTime, turns_of
from nemotrt.profiles.planning.time.engine_profile import Boundary
from nemotrt.profiles.planning.time.roofline import Scenario

MAX_AGENTS = 1 << 20  # in a search
SCENARIOS = (Scenario.LOW, Scenario.BEST, Scenario.HIGH)


@dataclass(frozen=True, slots=True)
class SessionRate:
    """What all agents at once get, on average over the turns.

    `warm_share` of the turns find their prefix, and `hit_share` of all prompts' tokens are not
    computed. `running` requests run at a time, prompts among them. `agents_in_target` is the most
    agents whose turns stay within the latency target; None where none was given.
    """

    warm_share: float
    hit_share: float
    running: float
    ttft_ms: float
    tpot_ms: float
    queue_ms: float
    turns_per_s: float
    sessions_per_s: Range
    agents_in_target: int | None


@dataclass(frozen=True, slots=True)
class SessionsPlan:
    """A prediction of agents' sessions; nothing in it was measured.

    `kept` is None where nobody knows what the engine keeps, and then so is `warm_sessions`.
    `prefix_cache_bytes` is the host memory that was given, or what all agents need; None where
    states stay on the GPU. `slots` sessions run at once.
    """

    load: SessionLoad
    boundary: Boundary
    memory: KeptMemory
    prefix_cache_bytes: int | None
    warm_sessions: int | None
    slots: int
    by_turn: tuple[TurnTime, ...]
    kept: SessionRate | None
    cold: SessionRate
    notes: tuple[str, ...]


def plan_sessions(
    deployment: Deployment,
    load: SessionLoad,
    slots: int,
    prefix_cache_gib: float | None = None,
    target: LatencyTarget | None = None,
) -> SessionsPlan:
    """Return the plan of agents on a deployment whose lengths are the load's longest.

    Raises:
        ConfigError: an engine that keeps states on the GPU is given host memory for them, or the
            GPU's profile lacks a figure.
        NoFeasiblePlanError: not even one agent's turns are within the target.
    """
    boundary, memory = deployment.engine.reuse.boundary, kept_memory(deployment, load)
    is_on_host = boundary is Boundary.ANY_TOKEN
    if prefix_cache_gib is not None and not is_on_host:
        raise ConfigError(
            f"--prefix-cache-gib: engine {deployment.engine.name} keeps no states in host memory "
            "that the planner knows of; leave it out."
        )
    limit = memory.of(load.concurrency) if prefix_cache_gib is None else int(prefix_cache_gib * GIB)
    turns = {scenario: turns_of(deployment, load, scenario) for scenario in SCENARIOS}
    warm = _warm_sessions(deployment, memory, load, limit)

    def warm_share(agents: int) -> float:
        has_all = prefix_cache_gib is None and is_on_host  # more agents get more memory
        return 1.0 if has_all else min((warm or 0) / agents, 1.0)

    served = _Served(turns, load, slots, target)
    found = SessionsPlan(
        load=load,
        boundary=boundary,
        memory=memory,
        prefix_cache_bytes=limit if is_on_host else None,
        warm_sessions=warm,
        slots=slots,
        by_turn=turns[Scenario.BEST].times,
        kept=None if warm is None else served.rate(warm_share),
        cold=served.rate(lambda agents: 0.0),
        notes=tuple(_notes(deployment, load, warm)),
    )
    _require_agents(found)
    return found


def _warm_sessions(
    deployment: Deployment, memory: KeptMemory, load: SessionLoad, limit: int
) -> int | None:
    """Return how many sessions' states are kept at once; None where it is not known."""
    match deployment.engine.reuse.boundary:
        case Boundary.UNKNOWN:
            return None
        case Boundary.ANY_TOKEN:
            return memory.sessions_in(limit)
        case Boundary.BLOCKS | Boundary.SNAPSHOTS:
            return deployment.fit.max_batch_size(load.longest_tokens)


@dataclass(frozen=True, slots=True)
class _Served:
    """An engine's turns, and who asks for them."""

    turns: Mapping[Scenario, Turns]
    load: SessionLoad
    slots: int
    target: LatencyTarget | None

    def flow(self, agents: int, share: float, scenario: Scenario = Scenario.BEST) -> Flow:
        """Return the steady state of so many agents."""
        turns, steps = self.turns[scenario], self.load.osl - 1
        service = Service(turns.prefill_s(share), turns.step_s, steps, self.slots)
        return flow(service, agents, self.load.mean_think_s)

    def rate(self, warm_share: Callable[[int], float]) -> SessionRate:
        """Return what the load's agents get, `warm_share` by how many there are."""
        agents, turns = self.load.concurrency, self.load.num_turns
        share = warm_share(agents)
        low, best, high = (self.flow(agents, share, scenario) for scenario in SCENARIOS)
        rates = Range(*(found.turns_per_s / turns for found in (low, best, high)))
        return SessionRate(
            warm_share=share,
            hit_share=share * self.turns[Scenario.BEST].cached_share,
            running=best.running,
            ttft_ms=1e3 * best.ttft_s,
            tpot_ms=1e3 * best.tpot_s,
            queue_ms=1e3 * best.queue_s,
            turns_per_s=best.turns_per_s,
            sessions_per_s=rates,
            agents_in_target=self._agents_in_target(warm_share),
        )

    def _agents_in_target(self, warm_share: Callable[[int], float]) -> int | None:
        """Return the most agents whose mean turn is within the target; latencies grow with them."""
        if self.target is None or self.target == LatencyTarget():
            return None
        low, high = 0, 1
        while high < MAX_AGENTS and self._is_met(high, warm_share(high)):
            low, high = high, 2 * high
        while low + 1 < high:
            middle = (low + high) // 2
            is_met = self._is_met(middle, warm_share(middle))
            low, high = (middle, high) if is_met else (low, middle)
        return low

    def _is_met(self, agents: int, share: float) -> bool:
        found = self.flow(agents, share)
        assert self.target is not None  # the caller looked
        return self.target.is_met(1e3 * found.ttft_s, 1e3 * found.tpot_s)


def _require_agents(plan: SessionsPlan) -> None:
    """Raise NoFeasiblePlanError where a target lets in no agent."""
    rate = plan.kept or plan.cold
    if rate.agents_in_target == 0:
        raise NoFeasiblePlanError(
            "The latency target cannot be met: one agent alone gets "
            f"{_mean(plan):.0f} ms to the first token on average over the turns."
        )


def _mean(plan: SessionsPlan) -> float:
    """Return the mean time to the first token of a turn that has the engine to itself."""
    found = [time.kept_ttft_ms or time.cold_ttft_ms for time in plan.by_turn]
    return sum(found) / len(found)


def _notes(deployment: Deployment, load: SessionLoad, warm: int | None) -> Iterator[str]:
    """Yield what is assumed, and what is not known."""
    reuse, name = deployment.engine.reuse, deployment.engine.name
    match reuse.boundary:
        case Boundary.UNKNOWN:
            yield f"what {name} keeps of a prefix is not known, so all is computed: {reuse.source}"
            return
        case Boundary.ANY_TOKEN:
            low, high = LINK_SHARE.low, LINK_SHARE.high
            if deployment.gpu.kind == "gpu":
                yield f"copies of states reach {low:.0%} to {high:.0%} of the host link"
        case Boundary.BLOCKS:
            block = deployment.request.tokens_per_block
            yield f"{name} goes on from whole blocks of {block} tokens: {reuse.source}"
        case Boundary.SNAPSHOTS:
            interval = snapshot_interval(load.system_tokens, deployment.request.tokens_per_block)
            yield (
                f"{name} keeps a state at each prompt's end and every {interval} tokens: "
                f"{reuse.source}"
            )
    if reuse.boundary is not Boundary.ANY_TOKEN:
        yield "of each session that the GPU holds, running or not, one state is counted"
    yield "an answer is computed again with the next prompt, as templates drop its reasoning"
    yield "the first turn finds the shared text, which an earlier session had"
    if warm is not None and warm < load.concurrency:
        agents = load.concurrency
        yield f"{warm} of {agents} sessions stay warm; the others' turns are computed whole"
