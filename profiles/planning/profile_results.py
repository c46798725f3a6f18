"""Reads a user's own measurements: results of `nemotrt profile`, or a CSV in our columns."""

import json
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemotrt.errors import ArtefactError
from nemotrt.profiles.planning.deployment import DeploymentOptions
from nemotrt.profiles.planning.measured import MeasuredRow, read_rows

# Where a result keeps a metric's value beside its statistics.
VALUE_KEYS = ("value", "mean")


def read_results(path: Path, options: DeploymentOptions) -> list[MeasuredRow]:
    """Return the measured rows of a file; `options` says what a result leaves open.

    A run's folder stands for its result.json. A result needs isl, osl, concurrency and
    tokens_per_s, at any depth, as numbers or as objects with a value or a mean.

    Raises:
        ArtefactError: not JSON, not of a complete run, or one of the four is missing.
        ConfigError: a CSV without our columns.
    """
    if path.is_dir():
        path = path / "result.json"
    if path.suffix == ".csv":
        return read_rows(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtefactError(f"{path} is not a profile result: {error}.") from error
    status = raw.get("status", "complete") if isinstance(raw, dict) else "complete"
    if status != "complete":
        raise ArtefactError(f"{path} is of a run that is {status}; it cannot calibrate a GPU.")
    numbers = {name: _find(raw, name) for name in ("isl", "osl", "concurrency", "tokens_per_s")}
    missing = [name for name, value in numbers.items() if value is None]
    if missing:
        raise ArtefactError(f"{path} has no {', '.join(missing)}; it cannot calibrate a GPU.")
    known = {name: value for name, value in numbers.items() if value is not None}
    return [
        MeasuredRow(
            number=0,
            model=options.model,
            gpu=options.gpu,
            precision=options.precision,
            kv=options.kv_dtype,
            ssm=options.ssm_dtype,
            engine=options.engine,
            isl=round(known["isl"]),
            is_isl_assumed=False,
            osl=round(known["osl"]),
            concurrency=round(known["concurrency"]),
            metric="output_tok_s",
            tokens_per_s=known["tokens_per_s"],
            itl_ms=None,
            ttft_ms=None,
            kind="fixed_concurrency",
            source=str(path),
            notes="",
            role="calibration",
            num_gpus=options.tp,
        )
    ]


def _find(raw: Any, name: str) -> float | None:
    """Return the number called `name` that is nearest to the top, or None."""
    queue: deque[Any] = deque([raw])
    while queue:
        node = queue.popleft()
        if isinstance(node, Mapping):
            number = _number(node.get(name))
            if number is not None:
                return number
            queue.extend(node.values())
    return None


def _number(value: Any) -> float | None:
    """Return a positive number, also from the mean of an object of statistics."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in VALUE_KEYS if value.get(key) is not None), None)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    return float(value)
