"""A GPU trace as a table: CSV, JSON or Parquet, chosen by the file's suffix."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nemotrt.errors import ConfigError
from nemotrt.files.writing import check_file, writing_file
from nemotrt.needs import PYARROW
from nemotrt.profiles.hardware.nvml.gpu_trace import GpuTrace

SUFFIXES = (".csv", ".json", ".parquet")


def check_table(path: Path, *, force: bool) -> None:
    """Raise ConfigError for an unknown suffix, or a file that is in the way."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: the suffix must be one of {', '.join(SUFFIXES)}.")
    check_file(path, force=force)
    if path.suffix == ".parquet":
        _parquet()


def write_table(traces: Sequence[GpuTrace], path: Path) -> None:
    """Write one row a sample whole or not at all; JSON has the GPUs' facts too."""
    with writing_file(path) as partial:
        if path.suffix == ".json":
            value = {"schema_version": 1, "gpus": [t.model_dump(mode="json") for t in traces]}
            partial.write_text(json.dumps(value) + "\n", encoding="utf-8")
        elif path.suffix == ".csv":
            _write_csv(_rows(traces), partial)
        else:
            arrow, parquet = _parquet()
            parquet.write_table(arrow.Table.from_pylist(_rows(traces)), partial)


def _rows(traces: Sequence[GpuTrace]) -> list[dict[str, Any]]:
    """Return the samples of all GPUs in order of time."""
    rows = []
    for trace in traces:
        for sample in trace.samples:
            row = {"gpu": trace.facts.index, "uuid": trace.facts.uuid, **sample.model_dump()}
            row["pids"] = None if sample.pids is None else " ".join(map(str, sample.pids))
            rows.append(row)
    return sorted(rows, key=lambda row: (row["at_s"], row["gpu"]))


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows; a figure that the GPU does not have is an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["at_s"])
        writer.writeheader()
        writer.writerows(rows)


def _parquet() -> tuple[Any, Any]:
    """Return pyarrow and its Parquet module."""
    whole, parquet = (
        PYARROW.load(name, "Parquet", end=", or choose .csv or .json.")
        for name in ("pyarrow", "pyarrow.parquet")
    )
    return whole, parquet
