"""Who gets a slot next: requests that wait, and sequences that gave theirs up for a better one."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.scheduling.running_request import RunningRequest


@dataclass(frozen=True, slots=True)
class Parked:
    """A sequence whose state lies on the host."""

    sequence: RunningRequest
    place: Any  # the pipeline's
    num_bytes: int


class Line:
    """By priority, then in order of arrival; who was parked goes before who never ran."""

    def __init__(self) -> None:
        """Start empty."""
        self._requests: deque[Request] = deque()
        self._parked: dict[str, Parked] = {}

    def __len__(self) -> int:
        """All that wait."""
        return len(self._requests) + len(self._parked)

    def __iter__(self) -> Iterator[Request]:
        """Yield the requests in their order, as they are now."""
        parked = [item.sequence.request for item in self._parked.values()]
        return iter(sorted([*parked, *self._requests], key=lambda request: request.priority))

    def join(self, request: Request) -> None:
        """Add a request."""
        self._requests.append(request)

    def park(self, parked: Parked) -> None:
        """Add a sequence that ran."""
        self._parked[parked.sequence.request.request_id] = parked

    def has_parked(self, request: Request) -> bool:
        """Whether a request that waits ran before."""
        return request.request_id in self._parked

    def leave(self, request_id: str) -> Request | Parked | None:
        """Take one out of the line; None if it is not there."""
        if request_id in self._parked:
            return self._parked.pop(request_id)
        for request in self._requests:
            if request.request_id == request_id:
                self._requests.remove(request)
                return request
        return None
