"""How far off each figure was, where it was measured: beside a plan, so that a reader can weigh it.

The record is what `nemotrt plan validate` says of test rows by GPU; a test keeps the file in step.
"""

import json
from functools import cache
from importlib import resources
from typing import Any

RECORD = resources.files("nemotrt.profiles.planning.measured") / "records/track_record.json"
# As a plan prints them.
FIGURES = ("tokens/s", "tpot", "ttft", "power")


@cache
def _record() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(RECORD.read_text(encoding="utf-8"))
    return found


def track_record(gpu: str) -> tuple[str, ...]:
    """Return a line for each figure of a plan on `gpu`."""
    return tuple(_line(figure, gpu) for figure in FIGURES)


def _line(figure: str, gpu: str) -> str:
    seen = _record()[figure].get(gpu)
    if seen is None:
        return f"{figure} on {gpu}: never measured"
    return f"{figure} on {gpu}: {seen['mape']:.0%} over {seen['num_rows']} rows"
