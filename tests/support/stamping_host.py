"""The engine's process, which also writes down when each token was there: $STAMPS, a line a token.

A line is the request's seed (its name here: greedy sampling needs none), the number of its tokens
so far, and the time on the monotonic clock, which all processes of a machine share.
"""

import os
import sys
import time
from typing import Any

from nemotrt.engines import opening
from nemotrt.engines.runtime.request import Request, Update
from nemotrt.serve.engine import host as engine_host


class Stamping:
    """A scheduler's tokens, stamped as they leave it."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._seeds: dict[str, int | None] = {}
        self._counts: dict[str, int] = {}
        self._stamps = open(os.environ["STAMPS"], "a", buffering=1 << 16)  # noqa: SIM115

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def submit(self, request: Request) -> None:
        self._seeds[request.request_id] = request.params.seed
        self._counts[request.request_id] = 0
        self._scheduler.submit(request)

    def step(self) -> list[Update]:
        updates: list[Update] = self._scheduler.step()
        now_s = time.monotonic()
        for update in updates:
            name = update.request_id
            for _ in update.tokens:
                self._counts[name] += 1
                self._stamps.write(f"{self._seeds[name]} {self._counts[name]} {now_s}\n")
            if update.finish_reason is not None:
                self._seeds.pop(name, None)
                self._counts.pop(name, None)
        if self._scheduler.is_idle:
            self._stamps.flush()
        return updates


class StampedEngine(opening.OpenEngine):
    """An open engine whose schedulers stamp."""

    def scheduler(self, *arguments: Any, **options: Any) -> Any:
        return Stamping(super().scheduler(*arguments, **options))


def open_stamped(*arguments: Any, **options: Any) -> opening.OpenEngine:
    opened = opening.open_engine(*arguments, **options)
    return StampedEngine(**{name: getattr(opened, name) for name in opened.__dataclass_fields__})


if __name__ == "__main__":
    engine_host.open_engine = open_stamped
    sys.exit(engine_host.main())
