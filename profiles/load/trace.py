"""Reads a trace: one JSON object a line with timestamp (ms), input_length, output_length."""

import math
from pathlib import Path

from nemotrt.engines.text_file import parse_json, read_text
from nemotrt.errors import ConfigError
from nemotrt.profiles.load.workload import TraceEntry

# Source: the trace format of Mooncake (FAST '25), which NVIDIA's AIPerf replays too.
KEYS = ("timestamp", "input_length", "output_length")


def read_trace(path: Path, *, speedup: float = 1.0) -> tuple[TraceEntry, ...]:
    """Return the requests in order of time; the first is due at once.

    Args:
        path: a JSONL file; further keys of a line are ignored.
        speedup: 2 replays twice as fast.

    Raises:
        ConfigError: no such file, or a line is not of this form.
    """
    lines = read_text(path).split("\n")  # splitlines() would cut at U+2028 too
    entries = [
        _entry(f"{path}:{number}", line, speedup)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not entries:
        raise ConfigError(f"the trace {path} has no requests.")
    entries.sort(key=lambda entry: entry.due_s)
    first_s = entries[0].due_s
    return tuple(TraceEntry(e.due_s - first_s, e.isl, e.osl) for e in entries)


def _entry(where: str, line: str, speedup: float) -> TraceEntry:
    """Return one line's request."""
    value = parse_json(line, where, ConfigError)
    try:
        timestamp, isl, osl = (value[key] for key in KEYS)
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{where} must be a JSON object with {', '.join(KEYS)}: {error!r}."
        ) from error
    is_time = type(timestamp) in (int, float) and math.isfinite(timestamp) and timestamp >= 0
    if not is_time or not all(type(length) is int and length > 0 for length in (isl, osl)):
        raise ConfigError(f"{where}: timestamp must be milliseconds, the lengths positive counts.")
    return TraceEntry(timestamp / 1e3 / speedup, isl, osl)
