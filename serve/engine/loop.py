"""The one thread that owns the scheduler: takes submissions, steps, hands out what they gained."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nemotrt.engines.runtime.request import FinishReason, Update
from nemotrt.engines.runtime.request_scheduler import BreaksAlone, RequestScheduler
from nemotrt.errors import ConfigError
from nemotrt.serve.engine.admission import AdmissionQueue
from nemotrt.serve.engine.delivery import Delivery, Fields, failure, outcome_of
from nemotrt.serve.engine.submission import Submission
from nemotrt.serve.engine.telemetry import Telemetry
from nemotrt.serve.logs.tracing import Tracing
from nemotrt.serve.processes.options import ChunkRate, QueueLimits
from nemotrt.wire.frames import STOPPING

log = logging.getLogger("nemotrt.engine")
SHUTTING_DOWN = failure(**STOPPING)
BY_DEFAULT = ChunkRate()


@dataclass(slots=True)
class LiveRequest:
    """A request that waits or runs."""

    submission: Submission
    delivery: Delivery
    error: Fields | None = None  # what to say instead of "cancelled" once it is cancelled


class EngineLoop:
    """Runs a scheduler in a thread; the other methods may be called from any thread."""

    def __init__(
        self,
        scheduler: RequestScheduler,
        limits: QueueLimits,
        flush: Callable[[], None] = lambda: None,
        *,
        rate: ChunkRate = BY_DEFAULT,
        tracing: Tracing | None = None,
    ) -> None:
        """Prepare; `flush` is called after each step."""
        self._rate = rate
        self.scheduler = scheduler
        self.waiting = AdmissionQueue(limits)
        self.failure: BaseException | None = None
        self.num_steps = 0
        self._num_held_back = 0  # by the scheduler, after its last step
        self.telemetry = Telemetry(tracing)
        self._flush = flush
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._live: dict[str, LiveRequest] = {}
        self._stop_at_s: float | None = None
        self.is_draining = False
        self._thread = threading.Thread(target=self._run, name="engine loop", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        scheduler = self.scheduler
        if isinstance(scheduler, BreaksAlone):  # a loop that waits for requests hears it
            scheduler.when_broken(lambda: self._inbox.put(scheduler.check))
        self._thread.start()

    def submit(self, submission: Submission) -> None:
        """Queue a request; it hears through its `deliver` what becomes of it."""
        self._inbox.put(lambda: self._enqueue(submission))

    def cancel(self, request_id: str) -> None:
        """End a request before the next step; an unknown id is ignored: it has just ended."""
        self._inbox.put(lambda: self._end(request_id, None))

    def cancel_all(self, owner: Any) -> None:
        """End every request of an owner, who is gone and will hear nothing more."""
        self._inbox.put(lambda: self._end_all(owner))

    def stop(self, drain_s: float) -> None:
        """Refuse new requests, let the live ones run for `drain_s` at most, then end the thread."""
        deadline = time.monotonic() + drain_s

        def begin() -> None:
            self._stop_at_s = deadline

        self.is_draining = True  # at once: a step may last
        self._inbox.put(begin)

    def join(self) -> None:
        """Wait for the thread to end."""
        self._thread.join()

    def status(self) -> dict[str, int]:
        """Return how many requests wait and run, the limits, and whether the loop is stopping."""
        return {
            "is_draining": self.is_draining,
            "num_waiting": len(self.waiting) + self._num_held_back,
            "num_running": len(self.scheduler.running),
            "max_batch_size": self.scheduler.engine.limits.max_batch_size,
            "max_seq_len": self.scheduler.engine.limits.max_seq_len,
            "num_steps": self.num_steps,
        }

    def gauges(self) -> dict[str, float]:
        """Return what telemetry shows as it is now."""
        running = list(self.scheduler.running.values())
        return {
            "slots": self.scheduler.engine.limits.max_batch_size,
            "slots_in_use": len(running),
            "waiting_requests": len(self.waiting) + self._num_held_back,
            "queue_age_seconds": self.waiting.age_s(time.monotonic()),
            "held_tokens": sum(sequence.num_fed + len(sequence.output) for sequence in running),
        }

    def _run(self) -> None:
        """Step until told to stop and nothing is left; an engine's fault fails every request."""
        try:
            while self._stop_at_s is None or self._live:
                self._take_inbox(wait=not self._live)
                self._expire(time.monotonic())
                self._admit()
                self._step()
                self._flush()
        except Exception as error:
            log.critical("the engine failed: %s", error, exc_info=error)
            self.failure = error
            self.is_draining = True  # nothing steps any more: we are not ready
            self._fail_all(failure("engine_failed", f"the engine failed: {error}"))
        else:
            self._take_inbox(wait=False)  # what came too late hears that we stop
        self._flush()

    def _step(self) -> None:
        """Let the scheduler make one step and report what it brought."""
        start_s = time.monotonic()
        most = self.scheduler.engine.limits.max_batch_size
        batch_size = min(len(self.scheduler.running) + len(self.scheduler.waiting), most)
        updates = self.scheduler.step()
        self._num_held_back = len(self.scheduler.waiting)
        now_s = time.monotonic()
        for update in updates:
            self.telemetry.updated(update, now_s)
            self._report(update, now_s)
        self.telemetry.stepped(batch_size, now_s - start_s)
        self.num_steps += 1

    def _take_inbox(self, *, wait: bool) -> None:
        """Carry out what has been asked; with `wait`, wait until something is."""
        while True:
            try:
                self._inbox.get(block=wait)()
            except queue.Empty:
                return
            wait = False

    def _enqueue(self, submission: Submission) -> None:
        """Take a request into the queue, or refuse it."""
        request_id = submission.request.request_id
        if request_id in self._live:
            submission.deliver(failure("invalid_request", "the request's number is in use."))
            return
        self.telemetry.submitted(submission)
        if self._stop_at_s is not None:
            self._refuse(submission, SHUTTING_DOWN)
        elif self.waiting.is_full and not self._has_free_slot():
            size = self.waiting.limits.max_queue_size
            self._refuse(submission, failure("queue_full", f"{size} requests wait; try later."))
        else:
            self._live[request_id] = LiveRequest(submission, Delivery(submission))
            self.waiting.push(submission)

    def _has_free_slot(self) -> bool:
        """Whether the scheduler would admit another request at its next step."""
        scheduler = self.scheduler
        taken = len(scheduler.running) + len(scheduler.waiting)
        return taken < scheduler.engine.limits.max_batch_size

    def _has_turn(self, submission: Submission) -> bool:
        """Whether the scheduler would have a slot for a request at its next step.

        One that keeps states takes slots from requests of worse priorities. Those that wait in the
        scheduler go first, if they are as good: for a prefix, for memory, or for a slot again.
        """
        scheduler, priority = self.scheduler, submission.request.priority
        if scheduler.kept is None:
            return self._has_free_slot()
        ahead = sum(other.priority <= priority for other in scheduler.waiting)
        running = [self._live[name].submission.request for name in scheduler.running]
        num_worse = sum(other.priority > priority for other in running)
        return ahead < scheduler.engine.limits.max_batch_size - len(running) + num_worse

    def _admit(self) -> None:
        """Give the scheduler as many requests as it has slots for, so that ours is the order."""
        if self.scheduler.waiting and self.scheduler.kept is None:
            return  # it holds some back for their memory: they go first
        while len(self.waiting) and self._has_turn(self.waiting.first):
            submission = self.waiting.pop()
            try:
                self.scheduler.submit(submission.request)
                self.telemetry.admitted(submission)
            except ConfigError as error:
                self._finish(submission, failure("invalid_request", error.message))

    def _expire(self, now_s: float) -> None:
        """End what has waited or run too long, and everything once the drain is over."""
        for submission in self.waiting.overdue(now_s):
            waited = f"no slot within {self.waiting.limits.max_queue_s:g} s; try again later."
            self._end(submission.request.request_id, failure("queue_timeout", waited))
        for request_id, live in list(self._live.items()):
            deadline = live.submission.deadline_s
            if deadline is not None and now_s >= deadline:
                limit = f"the request's {live.submission.inputs.timeout_ms} ms are over."
                self._end(request_id, failure("deadline_exceeded", limit))
        if self._stop_at_s is not None and now_s >= self._stop_at_s:
            for request_id in list(self._live):
                self._end(request_id, SHUTTING_DOWN)

    def _end(self, request_id: str, error: Fields | None) -> None:
        """End a request wherever it is; with `error` that is what its client hears."""
        live = self._live.get(request_id)
        if live is None:
            return
        if self.waiting.remove(live.submission):
            cancelled = Update(request_id, finish_reason=FinishReason.CANCELLED)
            self._finish(live.submission, error or live.delivery.fields(cancelled, 0, 0) or {})
        else:
            live.error = error
            self.scheduler.cancel(request_id)

    def _end_all(self, owner: Any) -> None:
        for request_id, live in list(self._live.items()):
            if live.submission.owner is owner:
                self._end(request_id, None)

    def _report(self, update: Update, now_s: float) -> None:
        """Deliver an update, and forget the request if it was the last."""
        live = self._live.get(update.request_id)
        if live is None:
            return
        interval_s = self._rate.interval_s(len(self.scheduler.running))
        fields = live.delivery.fields(update, now_s, interval_s)
        if update.finish_reason is FinishReason.CANCELLED and live.error is not None:
            fields = live.error
        if update.finish_reason is FinishReason.ERROR:
            fields = failure(update.error_code, update.error)
        if update.finish_reason is not None:
            self._finish(live.submission, fields or {})
        elif fields is not None:
            live.submission.deliver(fields)

    def _finish(self, submission: Submission, fields: Fields) -> None:
        """Deliver a request's last fields."""
        del self._live[submission.request.request_id]
        self._refuse(submission, fields)

    def _refuse(self, submission: Submission, fields: Fields) -> None:
        """Deliver the last fields of a request that is not live."""
        self.telemetry.ended(submission.request.request_id, outcome_of(fields))
        submission.deliver(fields)

    def _fail_all(self, fields: Fields) -> None:
        for live in list(self._live.values()):
            self._finish(live.submission, fields)
