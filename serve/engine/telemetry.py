"""The engine process's measurements, in Prometheus form."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from nemotrt.engines.runtime.request import ErrorCode, Update
from nemotrt.serve.engine.submission import Submission
from nemotrt.serve.logs.tracing import Tracing

log = logging.getLogger("nemotrt.engine")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
GAUGES = {
    "slots": "Slots of the engine.",
    "slots_in_use": "Sequences that hold a slot.",
    "waiting_requests": "Requests that wait for a slot.",
    "queue_age_seconds": "How long the request that has waited longest waits for a slot.",
    "held_tokens": "Tokens whose state the running sequences hold.",
    "kv_cache_bytes": "KV cache of the held tokens.",
    "ssm_state_bytes": "SSM and convolution state of the running sequences.",
}


@dataclass(slots=True)
class Timeline:
    """When things happened to one request, on the monotonic clock."""

    submission: Submission
    admitted_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    num_cached_tokens: int | None = None  # not known yet, or nothing is kept
    num_output_tokens: int = 0

    @property
    def submitted_s(self) -> float:
        """When it came."""
        return self.submission.submitted_s

    def fields(self) -> dict[str, Any]:
        """Return what a log calls it."""
        request = self.submission.request
        return {"request_id": self.submission.trail.request_id, "sequence": request.request_id}

    def counts(self) -> dict[str, Any]:
        """Return its tokens and times, as far as they are known."""
        ms = {
            "queue_ms": self.admitted_s,
            "ttft_ms": self.first_token_s,
            "duration_ms": time.monotonic(),
        }
        told = {"input_tokens": len(self.submission.request.prompt)}
        if self.num_cached_tokens is not None:
            told["cached_tokens"] = self.num_cached_tokens
        told["output_tokens"] = self.num_output_tokens
        return told | {
            name: round((moment_s - self.submitted_s) * 1e3, 2)
            for name, moment_s in ms.items()
            if moment_s is not None
        }


class Telemetry:
    """Counts and times requests, and tells of each; called by the engine's loop alone."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        """Start at zero."""
        self._tracing = tracing
        registry = self._registry = CollectorRegistry()

        def histogram(name: str, text: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(f"nemotrt_{name}", text, buckets=buckets, registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"nemotrt_{name}", text, labels, registry=registry)

        self._requests = counter("requests", "Requests that have ended, by how.", ("outcome",))
        self._not_finite = counter(
            "nonfinite_logits", "Requests that ended because the engine's logits were not finite."
        )
        self._prompt_tokens = counter("prompt_tokens", "Prompt tokens of admitted requests.")
        self._output_tokens = counter("output_tokens", "Generated tokens.")
        # No more labels than adapters were opened: a request of another name is never admitted.
        self._adapters = {
            what: counter(f"adapter_{what}", f"{text}, by adapter.", ("adapter",))
            for what, text in (
                ("requests", "Requests of adapters that had a slot and have ended"),
                ("prompt_tokens", "Prompt tokens of their admitted requests"),
                ("output_tokens", "Their generated tokens"),
            )
        }
        self._steps = counter("steps", "Engine steps.")
        self._queue = histogram("queue_seconds", "From arrival to a slot.")
        self._ttft = histogram("ttft_seconds", "From arrival to the first token.")
        self._tpot = histogram("tpot_seconds", "Mean time per output token after the first.")
        self._e2e = histogram("e2e_latency_seconds", "From arrival to the last token.")
        self._step = histogram("step_seconds", "Duration of an engine step.")
        self._batch = histogram("batch_size", "Sequences per engine step.", SIZES)
        self._gauges = {
            name: Gauge(f"nemotrt_{name}", text, registry=registry) for name, text in GAUGES.items()
        }
        self._timelines: dict[str, Timeline] = {}

    def submitted(self, submission: Submission) -> None:
        """Start a request's timeline."""
        timeline = Timeline(submission)
        self._timelines[submission.request.request_id] = timeline
        log.debug("queued", extra={"fields": timeline.fields()})

    def admitted(self, submission: Submission) -> None:
        """Note that a request has its slot."""
        timeline = self._timelines[submission.request.request_id]
        timeline.admitted_s = time.monotonic()
        self._queue.observe(timeline.admitted_s - timeline.submitted_s)
        self._prompt_tokens.inc(len(submission.request.prompt))
        self._count("prompt_tokens", timeline, len(submission.request.prompt))
        log.debug("admitted", extra={"fields": timeline.fields()})

    def updated(self, update: Update, now_s: float) -> None:
        """Note the tokens that a step brought a request, at once: the counter's rate is read."""
        self._output_tokens.inc(len(update.tokens))
        timeline = self._timelines.get(update.request_id)
        if timeline is None:
            return
        if update.cached_tokens is not None:
            timeline.num_cached_tokens = update.cached_tokens
        if not update.tokens:
            return
        if timeline.first_token_s is None:
            timeline.first_token_s = now_s
            self._ttft.observe(now_s - timeline.submitted_s)
        self._count("output_tokens", timeline, len(update.tokens))
        timeline.last_token_s = now_s
        timeline.num_output_tokens += len(update.tokens)

    def _count(self, what: str, timeline: Timeline, count: int) -> None:
        """Add to what the adapter of a request has, if it has one."""
        if adapter := timeline.submission.request.adapter:
            self._adapters[what].labels(adapter).inc(count)

    def ended(self, request_id: str, outcome: str) -> None:
        """Close a request's timeline; `outcome` is its finish reason or error code."""
        self._requests.labels(outcome).inc()
        if outcome == ErrorCode.LOGITS_NOT_FINITE:
            self._not_finite.inc()
        timeline = self._timelines.pop(request_id, None)
        if timeline is None:
            return
        if timeline.admitted_s is not None:
            self._count("requests", timeline, 1)
        fields = {**timeline.fields(), "outcome": outcome, **timeline.counts()}
        log.info("ended", extra={"fields": fields})
        if self._tracing is not None:
            ends_s = timeline.admitted_s, timeline.first_token_s, timeline.last_token_s
            trail = timeline.submission.trail
            self._tracing.sequence(trail, timeline.submitted_s, ends_s, fields)
        if timeline.first_token_s is None or timeline.last_token_s is None:
            return
        self._e2e.observe(timeline.last_token_s - timeline.submitted_s)
        if timeline.num_output_tokens > 1:
            duration_s = timeline.last_token_s - timeline.first_token_s
            self._tpot.observe(duration_s / (timeline.num_output_tokens - 1))

    def stepped(self, batch_size: int, duration_s: float) -> None:
        """Note an engine step."""
        if batch_size:
            self._steps.inc()
            self._step.observe(duration_s)
            self._batch.observe(batch_size)

    def text(self, gauges: dict[str, float]) -> str:
        """Return the exposition, with `gauges` (by name, without prefix) as they are now."""
        for name, value in gauges.items():
            self._gauges[name].set(value)
        return generate_latest(self._registry).decode()


def info_text(facts: Mapping[str, str | int]) -> str:
    """Return which engine it is, as the labels of nemotrt_engine_info."""
    registry = CollectorRegistry()
    info = Info("nemotrt_engine", "The engine that answers.", registry=registry)
    info.info({name: str(value) for name, value in facts.items()})
    return generate_latest(registry).decode()
