"""A run as the metrics see it: finished requests, and the window in which the load was full."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from nemotrt.profiles.hardware.nvml.gpu_trace import GpuTrace
from nemotrt.profiles.load.exchange import StepSample
from nemotrt.profiles.runs.record.result import RequestRecord


@dataclass(frozen=True, slots=True)
class RunView:
    """Requests of a run, and the steady window in seconds since its start."""

    requests: tuple[RequestRecord, ...]
    steps: tuple[StepSample, ...]
    window_start_s: float
    window_end_s: float
    driver_cpu_s: float | None  # None: the driver does not tell
    slos: Mapping[str, float] = field(default_factory=dict)  # upper limits by metric name
    gpus: tuple[GpuTrace, ...] = ()
    server_queue_ms: float | None = None  # means by the server's own histograms
    server_batch_size: float | None = None

    @property
    def window_s(self) -> float:
        """Length of the steady window."""
        return self.window_end_s - self.window_start_s

    @property
    def measured(self) -> tuple[RequestRecord, ...]:
        """The measured requests that are complete."""
        return tuple(r for r in self.requests if r.phase == "measured" and r.is_complete)

    @property
    def answered(self) -> tuple[RequestRecord, ...]:
        """The measured requests that have had a response and no fault, complete or not yet.

        In a complete run they are `measured`; a run that was cut short has more of them.
        """
        return tuple(
            r for r in self.requests if r.phase == "measured" and r.arrivals_s and not r.error
        )

    def is_inside(self, at_s: float) -> bool:
        """Whether a time lies in the window."""
        return self.window_start_s < at_s <= self.window_end_s

    def arrivals(self) -> Iterator[tuple[float, int]]:
        """Yield time and number of tokens of every response in the window, of any phase.

        Those of a request that failed are nobody's answer.
        """
        for request in self.requests:
            if request.error:
                continue
            for arrived_s, num_tokens in zip(
                request.arrivals_s, request.arrival_tokens, strict=True
            ):
                if self.is_inside(arrived_s):
                    yield arrived_s, num_tokens
