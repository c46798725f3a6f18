"""The result of a profile run: one JSON file with every request and every sample."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pydantic

from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.files.model_file import Strict, json_model
from nemotrt.files.writing import write_file
from nemotrt.profiles.hardware.busy import MachineUse
from nemotrt.profiles.hardware.nvml.gpu_trace import Energy, GpuTrace
from nemotrt.profiles.load.exchange import Ending, Phase, StepSample, TurnPlace
from nemotrt.profiles.load.workload import MadeSessions, TracedSessions, TraceEntry, Workload
from nemotrt.profiles.runs.record.prediction import Prediction
from nemotrt.profiles.runs.record.statistics import Statistics


class Status(StrEnum):
    """How a run ended; only a complete one may be compared."""

    COMPLETE = "complete"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Warmth(StrEnum):
    """Whether a server had a prompt's beginning in its prefix cache."""

    NOT_TOLD = "not told"
    COLD = "cold"
    WARM = "warm"


TIMES = ("due_s", "sent_s", "admitted_s", "ended_s")
# Less than this of a prompt may be what every prompt of a chat template begins with.
MIN_WARM_SHARE = 0.25


class RequestRecord(Strict):
    """One request, an Exchange that is over; times are seconds since the start of the run."""

    index: int
    phase: Phase
    isl: int
    osl: int
    due_s: float
    sent_s: float | None  # None: it never was
    admitted_s: float | None
    ended_s: float | None  # None: it was cut off when the run ended
    arrivals_s: tuple[float, ...]
    arrival_tokens: tuple[int, ...]
    finish_reason: str
    error: str
    place: TurnPlace | None = None  # of a request that is a turn of a conversation
    cached_tokens: int | None = None  # None: the target does not tell
    ending: Ending
    num_retries: int = 0  # refusals before the last sending

    @pydantic.model_validator(mode="before")
    @classmethod
    def _with_ending(cls, values: Any) -> Any:
        """Return the record with its ending, which older results and other tools do not tell."""
        if not isinstance(values, dict) or "ending" in values:
            return values
        is_whole = 0 < sum(values.get("arrival_tokens", ())) == values.get("osl")
        ending = Ending.SUCCESS if is_whole else Ending.OPEN
        return values | {"ending": Ending.FAILED if values.get("error") else ending}

    @property
    def warmth(self) -> Warmth:
        """Whether a notable part of the prompt came from a prefix cache."""
        if self.cached_tokens is None:
            return Warmth.NOT_TOLD
        is_warm = self.cached_tokens > MIN_WARM_SHARE * self.isl
        return Warmth.WARM if is_warm else Warmth.COLD

    @property
    def num_output_tokens(self) -> int:
        """Tokens that came back."""
        return sum(self.arrival_tokens)

    @property
    def is_complete(self) -> bool:
        """Whether every token that was asked for came back; an answer without one is none."""
        return not self.error and 0 < self.num_output_tokens == self.osl

    def moved(self, move: Callable[[float], float]) -> "RequestRecord":
        """Return the request with every time moved."""
        times = {name: getattr(self, name) for name in TIMES}
        moved = {name: None if at_s is None else move(at_s) for name, at_s in times.items()}
        arrivals_s = tuple(move(at_s) for at_s in self.arrivals_s)
        return self.model_copy(update=moved | {"arrivals_s": arrivals_s})


class MetricValue(Strict):
    """A metric with its declaration; either a value, statistics, or why there is neither."""

    title: str
    unit: str
    formula: str
    source: str
    is_better_high: bool
    value: float | None = None
    statistics: Statistics | None = None
    not_computable: str | None = None


class TurnRecord(Strict):
    """All measured requests of one turn (from 1): medians, and the time to the first token.

    `new_tokens` are those that the prompt of the turn before did not have.
    """

    turn: int
    num_requests: int
    isl: float
    new_tokens: float
    cached_tokens: float | None  # None: the target does not tell
    ttft_ms: Statistics
    warm_ttft_ms: Statistics | None  # None: no request of the turn was warm, or nobody knows
    cold_ttft_ms: Statistics | None


class SessionsRecord(Strict):
    """Conversations as they were asked for; those of a trace are told by its digest."""

    num_turns: int  # of each; of a trace, of all together
    system_tokens: int = 0
    think_s: float = 0.0
    trace: str = ""

    @classmethod
    def of(cls, sessions: MadeSessions | TracedSessions) -> "SessionsRecord":
        """Return the record."""
        if isinstance(sessions, MadeSessions):
            return cls.model_validate(asdict(sessions))
        digest = hashlib.sha256(repr(sessions.conversations).encode()).hexdigest()
        return cls(num_turns=sessions.num_turns, trace=digest[:12])

    def text(self, isl: int, osl: int) -> str:
        """Return the load in words; a turn adds `isl` tokens and asks for `osl`."""
        if self.trace:
            return f"trace {self.trace[:8]} of {self.num_turns} turns"
        shared = f"{self.num_turns} turns of {isl} in, {osl} out after {self.system_tokens} shared"
        return f"{shared}, {self.think_s:g} s apart" if self.think_s else shared


class WorkloadRecord(Strict):
    """The workload as it was asked for."""

    isl: int
    osl: int
    num_requests: int
    concurrency: int
    num_warmup: int
    arrival: str
    requests_per_s: float
    language: str
    seed: int
    slos: dict[str, float]
    trace: tuple[TraceEntry, ...]
    sessions: SessionsRecord | None = None
    max_errors: str = "0"
    max_retries: int = 0

    @classmethod
    def of(cls, workload: Workload) -> "WorkloadRecord":
        """Return the record."""
        found = {item.name: getattr(workload, item.name) for item in fields(workload)}
        sessions = workload.sessions and SessionsRecord.of(workload.sessions)
        told = {"sessions": sessions, "max_errors": str(workload.max_errors)}
        return cls.model_validate(found | told)


class DriverRecord(Strict):
    """What the load driver itself cost, and whether it was the bottleneck; None: it is not told.

    Shares are of one core over the steady window. `busy_share` is the time in which the driver was
    at work or waited for a core; `cpu_share` what it used of one.
    """

    name: str = "nemotrt"
    cpu_share: float | None
    busy_share: float | None = None
    loop_lag_p99_ms: float | None  # how late it woke; bounds the error of a time stamp
    is_limit: bool


class ProfileResult(Strict):
    """The whole of result.json."""

    schema_version: Literal[1] = 1
    status: Status
    reason: str  # why it is not complete, "" otherwise
    started_at: str  # ISO 8601, UTC
    clock_start_s: float | None  # CLOCK_MONOTONIC at second 0: aligns logs of one machine
    duration_s: float
    target: dict[str, str | int]
    workload: WorkloadRecord
    window_s: tuple[float, float] | None  # the steady window; None where there was none
    metrics: dict[str, MetricValue]
    driver: DriverRecord
    machine: dict[str, str | int]
    notes: tuple[str, ...]
    requests: tuple[RequestRecord, ...]
    steps: tuple[StepSample, ...]
    gpus: tuple[GpuTrace, ...] = ()
    energy: tuple[Energy | None, ...] = ()  # of each GPU in the window
    prediction: Prediction | None = None
    turns: tuple[TurnRecord, ...] = ()  # of conversations
    endings: dict[Ending, int] = pydantic.Field(
        default_factory=dict
    )  # how many measured requests ended in which way
    machine_use: MachineUse | None = None  # None: nobody watched it

    def metric(self, name: str, statistic: str = "p50") -> float:
        """Return a metric's value, or one statistic of its distribution.

        Raises:
            ConfigError: it has none; the message says why.
        """
        entry = self.metrics[name]
        if entry.value is not None:
            return entry.value
        if entry.statistics is None:
            raise ConfigError(f"{name} is not computable: {entry.not_computable}")
        value: float = getattr(entry.statistics, statistic)
        return value


def write_result(result: ProfileResult, path: Path) -> None:
    """Write the JSON file whole or not at all."""
    write_file(path, result.model_dump_json() + "\n")


def read_result(path: Path) -> ProfileResult:
    """Return the result in a JSON file, or in a run's folder.

    Raises:
        ArtefactError: there is none, or it is not of this schema.
    """
    file = path / "result.json" if path.is_dir() else path
    if not file.exists():
        raise ArtefactError(f"{file} does not exist; give a profile run's folder.")
    return json_model(ProfileResult, file, "profile result")
