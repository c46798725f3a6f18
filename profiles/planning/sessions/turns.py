"""How long one turn's prompt takes an engine that has nothing else to do."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.gpu_profile import Correction
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.sessions.kept import cached_tokens
from nemotrt.profiles.planning.sessions.load import SessionLoad
from nemotrt.profiles.planning.time.engine_profile import Boundary
from nemotrt.profiles.planning.time.roofline import Roofline, Scenario, roofline
from nemotrt.profiles.planning.time.step import decode_step_time, prefill_s

# Tokens behind a chat prompt's last role marker: a state is kept before them, so that they are a
# call of their own.
# Source: the template of Nemotron-Nano-9B-v2 (the role's word, a line, the opening tag, a line).
TAIL_TOKENS = 4
# Of the host link, what copies of pinned memory reach.
LINK_SHARE = Correction(
    low=0.5,
    best=0.8,
    high=0.87,
    source="not measured here; high: 55.6 of 64 GB/s, the example output of NVIDIA's nvbandwidth "
    "(host_to_device_memcpy_ce); low: a switch that two GPUs share",
)


@dataclass(frozen=True, slots=True)
class TurnTime:
    """One turn of a session, alone on the engine; None where nobody knows what the engine keeps.

    `kept_ttft_ms` is with its prefix kept, `cold_ttft_ms` with nothing kept. The first turn finds
    the shared text, if an earlier session had it.
    """

    turn: int
    prompt_tokens: int
    cached_tokens: int | None
    kept_ttft_ms: float | None
    cold_ttft_ms: float


@dataclass(frozen=True, slots=True)
class Turns:
    """The turns of a session in one scenario, and the seconds of a step by how many run."""

    times: tuple[TurnTime, ...]
    step_s: Callable[[float], float]

    @property
    def cached_share(self) -> float:
        """The share of all prompts' tokens that warm turns find."""
        cached = sum(time.cached_tokens or 0 for time in self.times)
        return cached / sum(time.prompt_tokens for time in self.times)

    def prefill_s(self, warm_share: float) -> float:
        """Return a prompt's mean seconds where that share of the turns finds its prefix."""
        every = [
            time.cold_ttft_ms
            if time.kept_ttft_ms is None
            else warm_share * time.kept_ttft_ms + (1 - warm_share) * time.cold_ttft_ms
            for time in self.times
        ]
        return sum(every) / len(every) / 1e3


def turns_of(deployment: Deployment, load: SessionLoad, scenario: Scenario) -> Turns:
    """Return the turns of a session; a step's time between two whole numbers lies on a line."""
    on = roofline(deployment.gpu, deployment.engine, scenario)
    times = tuple(turn_time(deployment, on, load, turn) for turn in range(1, load.num_turns + 1))
    sharded = replace(deployment.sharded, cache_tokens=0)  # of a slot, what is held is read
    prompt = sum(time.prompt_tokens for time in times) / len(times)
    context = prompt + math.ceil(load.osl / 2)

    @cache
    def whole_s(running: int) -> float:
        return decode_step_time(sharded, on, running, context).total / 1e3

    def step_s(running: float) -> float:
        least = math.floor(running)
        more = running - least
        return (1 - more) * whole_s(least) + (more * whole_s(least + 1) if more else 0.0)

    return Turns(times, step_s)


def turn_time(deployment: Deployment, on: Roofline, load: SessionLoad, turn: int) -> TurnTime:
    """Return the time of a turn.

    Copies between host and GPU are counted whole: the kept state before the prompt, and what is
    kept of it afterwards.
    """
    prompt = load.prompt_tokens(turn)
    sharded = replace(deployment.sharded, cache_tokens=0)  # of a slot, what is held is read
    cold_s = prefill_s(sharded, on, prompt, deployment.max_num_tokens)
    cached = cached_tokens(deployment, load, turn)
    if cached is None:
        return TurnTime(turn, prompt, None, None, 1e3 * cold_s)
    tail = min(TAIL_TOKENS, prompt - cached - 1)
    body = prompt - cached - tail
    kept_s = prefill_s(sharded, on, body, deployment.max_num_tokens, start=cached)
    kept_s += prefill_s(sharded, on, tail, tail, start=cached + body) if tail else 0.0
    kept_s += copies_s(deployment, on, cached, prompt - cached)
    return TurnTime(turn, prompt, cached, 1e3 * kept_s, 1e3 * cold_s)


def copies_s(deployment: Deployment, on: Roofline, restored: int, saved: int) -> float:
    """Return the seconds of copying a state of `restored` tokens in, and `saved` tokens' out."""
    if deployment.engine.reuse.boundary is not Boundary.ANY_TOKEN:
        return 0.0  # it stays on the GPU
    request = deployment.request
    num_bytes = (restored + saved) * request.kv_cache_bytes_per_token
    num_bytes += (bool(restored) + 1) * request.own_state_bytes
    return num_bytes / copy_rate(deployment, on)


def copy_rate(deployment: Deployment, on: Roofline) -> float:
    """Return the bytes per second between kept states and the engine.

    Raises:
        ConfigError: the GPU's profile has no such figure.
    """
    datasheet = deployment.gpu.datasheet
    if deployment.gpu.kind == "cpu":  # each byte is read, and written
        return datasheet.bandwidth_gb_per_s * 1e9 * on.share("gemm_bandwidth") / 2
    if datasheet.host_link_gb_per_s is None:
        raise ConfigError(
            f"{deployment.gpu.name}: host_link_gb_per_s is missing from its datasheet section."
        )
    share = 1.0 if on.scenario is Scenario.FLOOR else getattr(LINK_SHARE, on.scenario.value)
    return float(datasheet.host_link_gb_per_s * 1e9 * share)
