"""AIPerf's profile_export.jsonl: one record a request."""

import json
from pathlib import Path
from typing import Any

from nemotrt.errors import ArtefactError
from nemotrt.profiles.imports.composition import Imported, compose, imported_request
from nemotrt.profiles.result import ProfileResult, RequestRecord

RECORDS_FILE = "profile_export.jsonl"
SUMMARY_FILE = "profile_export_aiperf.json"
NS_PER_S = 1e9
MS_PER_S = 1e3


def read_aiperf(path: Path) -> ProfileResult:
    """Return the result in an artifact folder or a records file.

    Source: AIPerf documentation, "Working with Profile Export Files".

    Raises:
        ArtefactError: a record is damaged, or was not streamed.
    """
    file = path / RECORDS_FILE if path.is_dir() else path
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
        requests = tuple(_request(index, record) for index, record in enumerate(lines))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{file} is no AIPerf export of a streamed run: {error!r}.") from error
    if not requests:
        raise ArtefactError(f"{file} has no requests.")
    config = _config(file.with_name(SUMMARY_FILE))
    endpoint, load = config.get("endpoint") or {}, config.get("loadgen") or {}
    concurrency = load.get("concurrency") or _max_in_flight(requests)
    model = ", ".join(endpoint.get("model_names") or ["unknown"])
    return compose(Imported("aiperf", model, str(path), int(concurrency), requests))


def _request(index: int, record: dict[str, Any]) -> RequestRecord:
    """Return one record's request."""
    metadata, metrics = record["metadata"], record["metrics"]
    phase = "warm-up" if metadata.get("benchmark_phase") == "warmup" else "measured"
    start_s = metadata["request_start_ns"] / NS_PER_S
    error = (record.get("error") or {}).get("message", "") if record.get("error") else ""
    if error or metadata.get("was_cancelled"):
        isl = int((metrics.get("error_isl") or {"value": 1})["value"])
        return imported_request(index, phase, isl, 1, start_s, [], error or "cancelled.")
    gaps_ms = [metrics["time_to_first_token"]["value"]]
    gaps_ms += (metrics.get("inter_chunk_latency") or {"value": []})["value"]
    return imported_request(
        index,
        phase,
        int(metrics["input_sequence_length"]["value"]),
        int(metrics["output_sequence_length"]["value"]),
        start_s,
        [gap_ms / MS_PER_S for gap_ms in gaps_ms],
        "",
    )


def _config(path: Path) -> dict[str, Any]:
    """Return the run's configuration from the summary beside the records, {} without one."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    config = raw.get("input_config") if isinstance(raw, dict) else None
    return config if isinstance(config, dict) else {}


def _max_in_flight(requests: tuple[RequestRecord, ...]) -> int:
    """Return the most requests that ran at once."""
    changes = [(r.due_s, 1) for r in requests] + [
        (r.ended_s, -1) for r in requests if r.ended_s is not None
    ]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most
