"""The bounded queue before the scheduler: by priority, then in order of arrival."""

import heapq
import itertools

from nemotrt.serve.engine.submission import Submission
from nemotrt.serve.processes.options import QueueLimits


class AdmissionQueue:
    """Requests that wait; a lower `priority` goes first."""

    def __init__(self, limits: QueueLimits) -> None:
        """Start empty."""
        self.limits = limits
        self._heap: list[tuple[int, int, Submission]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._heap)

    @property
    def is_full(self) -> bool:
        """Whether another request must be refused."""
        return len(self._heap) >= self.limits.max_queue_size

    def push(self, submission: Submission) -> None:
        """Add a request."""
        entry = (submission.inputs.priority, next(self._order), submission)
        heapq.heappush(self._heap, entry)

    @property
    def first(self) -> Submission:
        """The request whose turn it is."""
        return self._heap[0][-1]

    def pop(self) -> Submission:
        """Remove and return the request whose turn it is."""
        return heapq.heappop(self._heap)[-1]

    def remove(self, submission: Submission) -> bool:
        """Remove a request; False if it does not wait here."""
        kept = [entry for entry in self._heap if entry[-1] is not submission]
        was_waiting = len(kept) < len(self._heap)
        if was_waiting:
            heapq.heapify(kept)
            self._heap = kept
        return was_waiting

    def age_s(self, now_s: float) -> float:
        """Return how long the request that has waited longest waits; 0 for none."""
        return max((now_s - entry[-1].submitted_s for entry in list(self._heap)), default=0.0)

    def overdue(self, now_s: float) -> list[Submission]:
        """Return the requests that have waited too long."""
        limit = now_s - self.limits.max_queue_s
        return [entry[-1] for entry in self._heap if entry[-1].submitted_s < limit]
