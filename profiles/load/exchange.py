"""One request and everything that came back, with the time of each arrival."""

from dataclasses import dataclass, field
from enum import StrEnum

from nemotrt.files.strict import STRICT


class Phase(StrEnum):
    """What a request is for."""

    WARM_UP = "warm-up"  # fills the batch before the window; not measured
    MEASURED = "measured"
    COOL_DOWN = "cool-down"  # keeps the load up until the last measured request has ended


class Ending(StrEnum):
    """How a request ended; an answer after a refusal is no success."""

    OPEN = "open"  # it has not: under way, or cut off when the run ended
    SUCCESS = "success"  # answered whole at the first try
    RETRIED = "retried"  # answered whole after it had been refused
    REFUSED = "refused"  # the server has no room: 429, 503, RESOURCE_EXHAUSTED
    REJECTED = "rejected"  # the server takes no such request: any other status below 500
    SERVER_ERROR = "server error"  # a status of 500 or more, or an error in the stream
    DISCONNECTED = "disconnected"  # the connection broke off, or none came about
    STALLED = "stalled"  # nothing came for the time that was set
    MALFORMED = "malformed"  # no HTTP, no JSON, or a stream without its end
    WRONG_LENGTH = "wrong length"  # an answer of other tokens than were asked for
    WRONG_PROMPT = "wrong prompt"  # the server read other prompt tokens than were meant
    FAILED = "failed"  # nobody told the kind: another tool's, or of an older result

    @property
    def is_answer(self) -> bool:
        """Whether every token came."""
        return self in (Ending.SUCCESS, Ending.RETRIED)

    @property
    def is_error(self) -> bool:
        """Whether it ended without."""
        return not self.is_answer and self is not Ending.OPEN


class Counting(StrEnum):
    """Who counted the tokens of an answer."""

    TARGET = "target"  # the target itself, which makes them
    SERVER = "server"  # the server reported them
    RESPONSES = "responses"  # nobody: there are as many responses as tokens were asked for
    TOKENIZER = "tokenizer"  # ours, from the text


@dataclass(frozen=True, slots=True)
class StepSample:
    """One engine step, where the target reports them."""

    __pydantic_config__ = STRICT
    start_s: float
    end_s: float
    num_running: int
    num_waiting: int


@dataclass(frozen=True, slots=True)
class TurnPlace:
    """Which turn (from 1) of which conversation a request is."""

    __pydantic_config__ = STRICT
    conversation: int
    turn: int
    num_turns: int


@dataclass(slots=True)
class Exchange:
    """A request on its way; times are seconds of `time.perf_counter`.

    `arrivals_s` and `arrival_tokens` run in parallel: when a response came, and how many tokens it
    held. `due_s` is when the request was to be sent, `sent_s` when it was; without a schedule they
    are the same. Latencies count from `due_s`, so a driver or server that holds requests back
    can't hide it (coordinated omission). `place` is of a request that is a turn of a conversation;
    `cached_tokens` are those of its prompt that were not computed anew, None where the target does
    not tell. `num_retries` counts the refusals before the last sending.
    """

    index: int
    phase: Phase
    isl: int
    osl: int
    due_s: float | None = None
    sent_s: float | None = None
    ended_s: float | None = None
    admitted_s: float | None = None  # when it left the queue, where the target says so
    arrivals_s: list[float] = field(default_factory=list)
    arrival_tokens: list[int] = field(default_factory=list)
    tokens_so_far: int = 0  # for a progress bar: not corrected when the server counts otherwise
    counting: Counting = Counting.TARGET
    finish_reason: str = ""
    error: str = ""
    ending: Ending = Ending.OPEN
    num_retries: int = 0
    place: TurnPlace | None = None
    cached_tokens: int | None = None

    @property
    def num_output_tokens(self) -> int:
        """Tokens that came back so far."""
        return sum(self.arrival_tokens)

    def mark_sent(self, sent_s: float) -> None:
        """Note that the request is on its way."""
        self.sent_s = sent_s
        if self.due_s is None:
            self.due_s = sent_s

    def end(self, ending: Ending, error: str = "") -> None:
        """Note how it ended; an error says why."""
        self.ending, self.error = ending, error

    def add(self, arrived_s: float, num_tokens: int) -> None:
        """Note a response that holds `num_tokens` tokens."""
        self.arrivals_s.append(arrived_s)
        self.arrival_tokens.append(num_tokens)
        self.tokens_so_far += num_tokens
