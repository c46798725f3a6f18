"""How far off each figure was, where it was measured: beside a plan, so that a reader can weigh it.

The record is what `nemotrt plan validate` says of test rows by engine and GPU; a test keeps the
file in step.
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


def track_record(gpu: str, engine: str) -> tuple[str, ...]:
    """Return a line for each figure of a plan of an engine on `gpu`."""
    return tuple(_line(figure, gpu, engine) for figure in FIGURES)


def _line(figure: str, gpu: str, engine: str) -> str:
    """Return the record on both; where there is none, whether other engines ran on the GPU."""
    seen, where = _record()[figure], f"{figure} on {gpu} with {engine}"
    if mine := seen.get(f"{engine} {gpu}"):
        return f"{where}: {mine['mape']:.0%} over {mine['num_rows']} rows"
    others = {name: row for name, row in seen.items() if name.endswith(f" {gpu}")}
    num_rows = sum(row["num_rows"] for row in others.values())
    if not num_rows:
        return f"{where}: never measured"
    mean = sum(row["mape"] * row["num_rows"] for row in others.values()) / num_rows
    return f"{where}: never measured; with other engines {mean:.0%} over {num_rows} rows"
