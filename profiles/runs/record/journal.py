"""A run's requests on disk while they run, so that a killed run leaves what it measured.

`requests.jsonl` has a line when a request is sent and one when it ends; `arrivals.bin` has the
arrivals in between, in chunks of (request, count), the times and the numbers of tokens. They are
written a few times per second, in binary: a record of 16,384 arrivals as JSON would stop the event
loop for tens of milliseconds.
"""

import json
import shutil
import struct
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.profiles.load.exchange import Exchange

HEAD_FILE = "head.json"
REQUESTS_FILE = "requests.jsonl"
ARRIVALS_FILE = "arrivals.bin"
CHUNK = struct.Struct("=II")
TIMES, TOKENS = "d", "I"  # array's type codes


def journal_folder(output: Path) -> Path:
    """Return where the journal of a run that writes `output` is."""
    return output.with_name(output.name + ".partial")


@dataclass(slots=True)
class _Followed:
    """An exchange that has not ended, and the tokens of the arrivals that are on disk."""

    exchange: Exchange
    has_left: bool = False
    tokens: "array[int]" = field(default_factory=lambda: array(TOKENS))


class Journal:
    """Appends what is new of a run's exchanges; every write reaches the system at once."""

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        """Start a journal in `folder`, in place of an older one."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / HEAD_FILE).write_text(json.dumps(head, allow_nan=False) + "\n", encoding="utf-8")
        self._folder = folder
        self._requests = (folder / REQUESTS_FILE).open("w", encoding="utf-8", buffering=1)
        self._arrivals = (folder / ARRIVALS_FILE).open("wb", buffering=0)
        self._num_seen = 0
        self._followed: list[_Followed] = []

    def update(self, exchanges: list[Exchange], start_s: float) -> None:
        """Write what is new; times count from `start_s`."""
        self._followed += [_Followed(exchange) for exchange in exchanges[self._num_seen :]]
        self._num_seen = len(exchanges)
        chunks: list[bytes] = []
        open_before = self._followed
        self._followed = [item for item in open_before if not self._write(item, start_s, chunks)]
        self._arrivals.write(b"".join(chunks))

    def close(self) -> None:
        """Close the files; a journal without a request is removed."""
        self._requests.close()
        self._arrivals.close()
        if not self._num_seen:
            shutil.rmtree(self._folder)

    def _write(self, item: _Followed, start_s: float, chunks: list[bytes]) -> bool:
        """Write a request's lines, add its new arrivals to `chunks`; return whether it is over."""
        exchange, num_written = item.exchange, len(item.tokens)
        if exchange.due_s is None or (exchange.sent_s is None and exchange.ended_s is None):
            return exchange.ended_s is not None  # it has not left yet, or never will
        if not item.has_left:
            self._line(exchange, "sent", _sent(exchange, start_s))
            item.has_left = True
        times = array(TIMES, [at_s - start_s for at_s in exchange.arrivals_s[num_written:]])
        tokens = array(TOKENS, exchange.arrival_tokens[num_written:])
        if times:
            head = CHUNK.pack(exchange.index, len(times))
            chunks.append(head + times.tobytes() + tokens.tobytes())
            item.tokens += tokens
        if exchange.ended_s is None:
            return False
        end: dict[str, Any] = {
            "ended_s": round(exchange.ended_s - start_s, 6),
            "admitted_s": exchange.admitted_s and round(exchange.admitted_s - start_s, 6),
            "finish_reason": exchange.finish_reason,
            "error": exchange.error,
            "ending": exchange.ending.value,
            "num_retries": exchange.num_retries,
            "isl": exchange.isl,  # a chat's is told by the server
            "cached_tokens": exchange.cached_tokens,
        }
        if item.tokens.tolist() != exchange.arrival_tokens:  # counted anew at the end
            end["arrival_tokens"] = exchange.arrival_tokens
        self._line(exchange, "ended", end)
        return True

    def _line(self, exchange: Exchange, event: str, values: Mapping[str, Any]) -> None:
        line = {"index": exchange.index, "event": event, **values}
        self._requests.write(json.dumps(line, allow_nan=False) + "\n")


def _sent(exchange: Exchange, start_s: float) -> dict[str, Any]:
    """Return what is known of a request when it leaves."""
    assert exchange.due_s is not None  # the caller looked
    return {
        "phase": exchange.phase.value,
        "isl": exchange.isl,
        "osl": exchange.osl,
        "due_s": round(exchange.due_s - start_s, 6),
        "sent_s": exchange.sent_s and round(exchange.sent_s - start_s, 6),
        "place": exchange.place and asdict(exchange.place),
    }


def check_journal(folder: Path, *, force: bool) -> None:
    """Raise ConfigError if a killed run's journal would be lost."""
    if folder.exists() and not force:
        raise ConfigError(
            f"{folder} holds what a killed run had measured: `nemotrt report` reads it. Give "
            "another output, or --force to replace it."
        )


def discard_journal(folder: Path) -> None:
    """Remove a journal whose run has its result."""
    shutil.rmtree(folder, ignore_errors=True)


def read_journal(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the head and the requests as records; what was half written is left out.

    Raises:
        ArtefactError: the journal is damaged.
    """
    try:
        head = json.loads((folder / HEAD_FILE).read_text(encoding="utf-8"))
        lines = (folder / REQUESTS_FILE).read_text(encoding="utf-8").split("\n")[:-1]
        requests = _events(json.loads(line) for line in lines)
        _add_arrivals(requests, (folder / ARRIVALS_FILE).read_bytes())
        for request in requests.values():
            counted_anew = request.pop("counted_anew") or []
            if len(counted_anew) == len(request["arrivals_s"]):
                request["arrival_tokens"] = counted_anew
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtefactError(f"{folder} is no journal of a profile run: {error!r}.") from error
    return head, list(requests.values())


def _events(lines: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Return the requests by index, without arrivals."""
    requests: dict[int, dict[str, Any]] = {}
    for line in lines:
        index, event = line["index"], line.pop("event")
        if event == "sent":
            open_end = {"admitted_s": None, "ended_s": None, "finish_reason": "", "error": ""}
            line |= {"arrivals_s": [], "arrival_tokens": [], "counted_anew": None}
            requests.setdefault(index, line | open_end)
        else:
            line["counted_anew"] = line.pop("arrival_tokens", None)
            requests[index].update(line)
    return requests


def _add_arrivals(requests: dict[int, dict[str, Any]], data: bytes) -> None:
    """Put the chunks' arrivals into their requests."""
    place = 0
    while place + CHUNK.size <= len(data):
        index, count = CHUNK.unpack_from(data, place)
        times, tokens = array(TIMES), array(TOKENS)
        middle = place + CHUNK.size + count * times.itemsize
        end = middle + count * tokens.itemsize
        if end > len(data):
            return  # the kill came while it was written
        times.frombytes(data[place + CHUNK.size : middle])
        tokens.frombytes(data[middle:end])
        if index in requests:
            requests[index]["arrivals_s"] += [round(at_s, 6) for at_s in times]
            requests[index]["arrival_tokens"] += tokens
        place = end
