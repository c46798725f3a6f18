"""AIPerf's profile_export.jsonl: one record a request."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotrt.errors import ArtefactError
from nemotrt.files.json_lines import json_lines
from nemotrt.files.text_file import read_json
from nemotrt.profiles.load.exchange import TurnPlace
from nemotrt.profiles.runs.imports.composition import compose, imported_request
from nemotrt.profiles.runs.record.result import ProfileResult, RequestRecord

RECORDS_FILE = "profile_export.jsonl"
SUMMARY_FILE = "profile_export_aiperf.json"
COUNTS = ("input_sequence_length", "output_sequence_length", "usage_prompt_tokens", "error_isl")
CACHED = "usage_prompt_cache_read_tokens"
NS_PER_S = 1e9
MS_PER_S = 1e3


@dataclass(frozen=True, slots=True)
class AiperfRequest:
    """One record; times are seconds of the wall clock.

    `number` counts the requests of its phase in the order of sending. `num_input_tokens` and
    `cached_tokens` are the server's counts, None where it told none. `session` is the conversation
    that it belongs to, and `turn` its place there, from 0.
    """

    is_warmup: bool
    number: int
    credited_s: float  # when AIPerf's own schedule gave it out
    start_s: float
    isl: int
    osl: int
    num_input_tokens: int | None
    gaps_s: tuple[float, ...]  # time to first token, then from response to response
    error: str
    cached_tokens: int | None = None
    session: str = ""
    turn: int = 0


def read_records(file: Path) -> list[AiperfRequest]:
    """Return the requests of a records file.

    Source: AIPerf documentation, "Working with Profile Export Files"; files of AIPerf 0.13.0.

    Raises:
        ArtefactError: a record is damaged, or was not streamed.
    """
    try:
        lines = json_lines(file.read_bytes())
        return [_request(index, line) for index, (_, line) in enumerate(lines)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(f"{file} is no AIPerf export of a streamed run: {error!r}.") from error


def read_aiperf(path: Path) -> ProfileResult:
    """Return the result in an artifact folder or a records file.

    Raises:
        ArtefactError: a record is damaged, or was not streamed.
    """
    file = path / RECORDS_FILE if path.is_dir() else path
    found = read_records(file)
    if not found:
        raise ArtefactError(f"{file} has no requests.")
    config = _config(file.with_name(SUMMARY_FILE))
    phase = _profiling_phase(config)
    is_open = phase.get("type", "concurrency") != "concurrency"
    places = _places(found)
    requests = tuple(
        imported_request(
            index,
            "warm-up" if item.is_warmup else "measured",
            item.isl,
            item.osl,
            # what a schedule gave out late has waited (coordinated omission)
            item.credited_s if is_open else item.start_s,
            item.start_s,
            item.gaps_s,
            item.error,
            places.get((item.session, item.turn)),
            item.cached_tokens,
        )
        for index, item in enumerate(found)
    )
    concurrency = phase.get("concurrency") or _max_in_flight(requests)
    arrival = str(phase["type"]) if is_open else "closed"
    rate = float(phase.get("rate") or 0.0)
    model = _model(config)
    return compose(requests, "aiperf", model, str(path), int(concurrency), arrival, rate)


def _request(index: int, record: dict[str, Any]) -> AiperfRequest:
    """Return one record's request."""
    metadata, metrics = record["metadata"], record["metrics"]
    start_s = metadata["request_start_ns"] / NS_PER_S
    error = str((record.get("error") or {}).get("message", ""))
    if not error and metadata.get("was_cancelled"):
        error = "cancelled."
    gaps_ms: list[float] = []
    if not error:
        gaps_ms = [metrics["time_to_first_token"]["value"]]
        gaps_ms += (metrics.get("inter_chunk_latency") or {"value": []})["value"]
    counts = {name: (metrics.get(name) or {}).get("value") for name in COUNTS}
    isl, osl, num_input, error_isl = (counts[name] for name in COUNTS)
    if not error and (isl is None or osl is None):
        raise KeyError("input_sequence_length, output_sequence_length")
    return AiperfRequest(
        is_warmup=metadata.get("benchmark_phase") == "warmup",
        number=int(metadata.get("session_num", index)),
        credited_s=metadata.get("credit_issued_ns", metadata["request_start_ns"]) / NS_PER_S,
        start_s=start_s,
        isl=int(isl or error_isl or 1),
        osl=int(osl or 0),
        num_input_tokens=None if num_input is None else int(num_input),
        gaps_s=tuple(gap_ms / MS_PER_S for gap_ms in gaps_ms),
        error=error,
        cached_tokens=(metrics.get(CACHED) or {}).get("value"),
        session=str(metadata.get("x_correlation_id") or ""),
        turn=int(metadata.get("turn_index") or 0),
    )


def _places(found: list[AiperfRequest]) -> dict[tuple[str, int], TurnPlace]:
    """Return the place of each turn; {} where no conversation has a second one."""
    turns: dict[str, int] = {}
    for item in found:
        turns[item.session] = max(turns.get(item.session, 0), item.turn + 1)
    if max(turns.values()) < 2:
        return {}
    return {
        (session, turn): TurnPlace(number, turn + 1, num_turns)
        for number, (session, num_turns) in enumerate(turns.items())
        for turn in range(num_turns)
    }


def _profiling_phase(config: dict[str, Any]) -> dict[str, Any]:
    """Return how the measured requests were paced; {} where the summary does not say."""
    phases = [phase for phase in config.get("phases") or [] if phase.get("kind") != "warmup"]
    return phases[-1] if phases else config.get("loadgen") or {}


def _model(config: dict[str, Any]) -> str:
    """Return the model's name."""
    items = (config.get("models") or {}).get("items") or []
    names = [item["name"] for item in items] or (config.get("endpoint") or {}).get("model_names")
    return ", ".join(names or ["unknown"])


def _config(path: Path) -> dict[str, Any]:
    """Return the run's configuration from the summary beside the records, {} without one."""
    if not path.is_file():
        return {}
    raw = read_json(path)
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
