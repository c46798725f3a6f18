"""What a run asks for: lengths, how many requests, and how they arrive."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

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
class Turn:
    """One turn of a conversation: what it adds to the history, and when it is sent.

    Attributes:
        osl: tokens of the server's answer.
        messages: what is new, as OpenAI's messages; without them a text is made.
        num_tokens: of the text that is made.
        answer: the message that later turns have as the history's; without it a text is made.
        delay_s: the pause since the answer before it.
        due_s: not before this time since the start of the run, whatever the pause.
    """

    osl: int
    messages: tuple[Mapping[str, Any], ...] = ()
    num_tokens: int = 0
    answer: Mapping[str, Any] | None = None
    delay_s: float = 0.0
    due_s: float | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order; each is sent with all before it, behind the tools and the `head` messages."""

    turns: tuple[Turn, ...]
    head: tuple[Mapping[str, Any], ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class MadeSessions:
    """Conversations of agents: a task, then a tool's result each turn, until `num_turns` are done.

    All share one block of system prompt and tools, of about `system_tokens`. A turn adds the
    workload's `isl` tokens and asks for its `osl`; it is sent `think_s` after the answer before it.
    """

    num_turns: int
    system_tokens: int
    think_s: float


@dataclass(frozen=True, slots=True)
class TracedSessions:
    """Conversations that were recorded, each sent once and in order."""

    conversations: tuple[Conversation, ...]

    @property
    def num_turns(self) -> int:
        """Turns of all conversations together."""
        return sum(len(conversation.turns) for conversation in self.conversations)


@dataclass(frozen=True, slots=True)
class ErrorLimit:
    """How many requests of a run may fail: a share of the measured ones, rounded up, or a count.

    One at least must be answered.
    """

    share: float = 0.05
    count: int = 0

    @classmethod
    def parsed(cls, text: str) -> "ErrorLimit":
        """Return the limit that "3" or "5%" means; raises ConfigError."""
        if text.isdecimal():
            return cls(0.0, int(text))
        number = text.removesuffix("%")
        try:
            share = float(number) / 100
        except ValueError:
            share = -1.0
        if number == text or not 0 <= share <= 1:
            raise ConfigError(f"--max-errors {text!r} must be a count such as 3, or 0% to 100%.")
        return cls(share)

    def __str__(self) -> str:
        """Return what `parsed` reads."""
        return f"{100 * self.share:g}%" if self.share else str(self.count)

    def reason(self, num_failed: int, num_measured: int, first: str) -> str:
        """Return why a run in which so many requests failed has failed too, "" if it has not.

        Args:
            num_failed: of warm-up and measurement.
            num_measured: requests to be measured.
            first: the first failure.
        """
        shared = math.ceil(round(self.share * num_measured, 9))  # no 0.07 * 100 > 7
        allowed = min(shared + self.count, num_measured - 1)
        if num_failed <= allowed:
            return ""
        word = "request" if num_failed == 1 else "requests"
        return (
            f"{num_failed} {word} failed, and of {num_measured} measured ones --max-errors {self} "
            f"allows {allowed}; the first: {first}"
        )


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of `isl` tokens in and `osl` out; `num_warmup` come before the measured ones.

    In a closed loop the warm-up answers are staggered in length, so that the users fall out of
    step and the window sees every phase of a request at once. `slos` are upper limits of request
    metrics, such as {"ttft_ms": 500}. A trace has lengths and times of its own.

    With `sessions` each request is a turn, and `concurrency` conversations run at once. Warm-up and
    measurement are whole conversations; `isl` is then what a turn adds, and of a trace nothing.

    A run goes on while no more than `max_errors` requests fail. One that a server refuses, saying
    when to come again, is sent again `max_retries` times; its latencies count from when it was
    first due.
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
    sessions: MadeSessions | TracedSessions | None = None
    max_errors: ErrorLimit = ErrorLimit()
    max_retries: int = 0

    def __post_init__(self) -> None:
        """Check every value's range."""
        self._require("isl", self.isl >= 1, "at least 1")
        self._require("osl", self.osl >= 1, "at least 1")
        self._require("concurrency", self.concurrency >= 1, "at least 1")
        self._require("num_requests", self.num_requests >= 1, "at least 1")
        self._require("num_warmup", self.num_warmup >= 0, "0 or more")
        self._require("max_retries", self.max_retries >= 0, "0 or more")
        is_paced = self.arrival in (Arrival.POISSON, Arrival.FIXED)
        rate = self.requests_per_s
        self._require("requests_per_s", 0 < rate < math.inf if is_paced else True, "above 0")
        is_traced = isinstance(self.sessions, TracedSessions)
        if self.sessions is not None:
            own = (Arrival.CLOSED, Arrival.TRACE) if is_traced else (Arrival.CLOSED,)
            legal = " or ".join(repr(arrival.value) for arrival in own)
            self._require("arrival", self.arrival in own, f"{legal} with conversations")
        has_trace = self.arrival is Arrival.TRACE and not is_traced
        self._require("trace", bool(self.trace) == has_trace, "given exactly with arrival 'trace'")
        if isinstance(self.sessions, MadeSessions):
            turns = self.sessions.num_turns
            whole = f"a multiple of the {turns} turns of a conversation"
            self._require("num_requests", self.num_requests % turns == 0, whole)
            self._require("num_warmup", self.num_warmup % turns == 0, whole)

    def _require(self, name: str, is_valid: bool, legal: str) -> None:
        if not is_valid:
            raise ConfigError(f"{name} must be {legal}, got {getattr(self, name)!r}.")

    def warmup_osl(self, index: int) -> int:
        """Return the answer length of warm-up request `index`: evenly spread up to `osl`."""
        if self.arrival is not Arrival.CLOSED:
            return self.osl
        return max(round(self.osl * (index % self.concurrency + 1) / self.concurrency), 1)
