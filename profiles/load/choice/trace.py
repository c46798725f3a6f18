"""Reads a trace, JSON lines: timestamp (ms), input_length, output_length; or conversations."""

import math
from pathlib import Path
from typing import Any

from nemotrt.errors import ConfigError
from nemotrt.files.json_lines import json_lines
from nemotrt.profiles.load.choice.conversations import read_conversations
from nemotrt.profiles.load.choice.options import OSL
from nemotrt.profiles.load.workload import TracedSessions, TraceEntry

# Source: the trace format of Mooncake (FAST '25), which NVIDIA's AIPerf replays too.
KEYS = ("timestamp", "input_length", "output_length")


def read_trace(
    path: Path, *, osl: int = OSL, speedup: float = 1.0
) -> tuple[TraceEntry, ...] | TracedSessions:
    """Return the requests in order of time, the first due at once; or conversations.

    Args:
        path: a JSONL file; further keys of a request's line are ignored.
        osl: tokens of a conversation's answers where a turn does not say.
        speedup: 2 replays twice as fast.

    Raises:
        ConfigError: no such file, or a line is not of this form.
    """
    try:
        lines = list(json_lines(path.read_bytes()))
    except OSError as error:
        raise ConfigError(f"the trace {path} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"the trace {path}, {error}.") from error
    if not lines:
        raise ConfigError(f"the trace {path} has no requests.")
    placed = [(f"{path}:{number}", line) for number, line in lines]
    if "turns" in lines[0][1]:
        return read_conversations(placed, osl, speedup)
    entries = [_entry(where, line, speedup) for where, line in placed]
    entries.sort(key=lambda entry: entry.due_s)
    first_s = entries[0].due_s
    return tuple(TraceEntry(e.due_s - first_s, e.isl, e.osl) for e in entries)


def _entry(where: str, line: dict[str, Any], speedup: float) -> TraceEntry:
    """Return one line's request."""
    if missing := [key for key in KEYS if key not in line]:
        raise ConfigError(f"{where} of the trace has no {', '.join(missing)}.")
    timestamp, isl, osl = (line[key] for key in KEYS)
    is_time = type(timestamp) in (int, float) and math.isfinite(timestamp) and timestamp >= 0
    if not is_time or not all(type(length) is int and length > 0 for length in (isl, osl)):
        raise ConfigError(f"{where}: timestamp must be milliseconds, the lengths positive counts.")
    return TraceEntry(timestamp / 1e3 / speedup, isl, osl)
