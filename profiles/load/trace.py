"""Reads a trace: one JSON object a line with timestamp (ms), input_length, output_length."""

import json
from pathlib import Path

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
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the trace {path} can't be read: {error}.") from error
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
    try:
        value = json.loads(line)
        timestamp, isl, osl = (value[key] for key in KEYS)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{where} must be a JSON object with {', '.join(KEYS)}: {error!r}."
        ) from error
    is_number = isinstance(timestamp, int | float) and not isinstance(timestamp, bool)
    if not is_number or not (isinstance(isl, int) and isinstance(osl, int) and isl > 0 < osl):
        raise ConfigError(f"{where}: timestamp must be milliseconds, the lengths positive counts.")
    return TraceEntry(timestamp / 1e3 / speedup, isl, osl)
