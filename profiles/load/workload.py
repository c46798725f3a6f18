"""What a run asks for: lengths, how many requests, and how they arrive."""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from nemotrt.errors import ConfigError
from nemotrt.files.strict import STRICT


class Language(StrEnum):
    """The language of the prompts' text."""

    ENGLISH = "en"
    JAPANESE = "ja"
    MIXED = "mixed"  # every other request


class Arrival(StrEnum):
    """When the next request is sent."""

    CLOSED = "closed"  # when one of `concurrency` users has its answer
    POISSON = "poisson"  # at random, `requests_per_s` on average, whatever the server does
    FIXED = "fixed"  # evenly, `requests_per_s`
    TRACE = "trace"  # at the times of a recorded trace


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """A request of a trace; `due_s` counts from the trace's start."""

    __pydantic_config__ = STRICT
    due_s: float
    isl: int
    osl: int


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of `isl` tokens in and `osl` out; `num_warmup` come before the measured ones.

    In a closed loop the warm-up answers are staggered in length, so that the users fall out of
    step and the window sees every phase of a request at once. `slos` are upper limits of request
    metrics, such as {"ttft_ms": 500}. A trace has lengths and times of its own.
    """

    isl: int
    osl: int
    num_requests: int
    concurrency: int = 1
    num_warmup: int = 1
    arrival: Arrival = Arrival.CLOSED
    requests_per_s: float = 0.0
    language: Language = Language.MIXED
    seed: int = 0
    slos: dict[str, float] = field(default_factory=dict)
    trace: tuple[TraceEntry, ...] = ()

    def __post_init__(self) -> None:
        """Check every value's range."""
        self._require("isl", self.isl >= 1, "at least 1")
        self._require("osl", self.osl >= 1, "at least 1")
        self._require("concurrency", self.concurrency >= 1, "at least 1")
        self._require("num_requests", self.num_requests >= 1, "at least 1")
        self._require("num_warmup", self.num_warmup >= 0, "0 or more")
        is_paced = self.arrival in (Arrival.POISSON, Arrival.FIXED)
        rate = self.requests_per_s
        self._require("requests_per_s", 0 < rate < math.inf if is_paced else True, "above 0")
        has_trace = self.arrival is Arrival.TRACE
        self._require("trace", bool(self.trace) == has_trace, "given exactly with arrival 'trace'")

    def _require(self, name: str, is_valid: bool, legal: str) -> None:
        if not is_valid:
            raise ConfigError(f"{name} must be {legal}, got {getattr(self, name)!r}.")

    def warmup_osl(self, index: int) -> int:
        """Return the answer length of warm-up request `index`: evenly spread up to `osl`."""
        if self.arrival is not Arrival.CLOSED:
            return self.osl
        return max(round(self.osl * (index % self.concurrency + 1) / self.concurrency), 1)
