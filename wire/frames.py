"""Frames on the socket between the engine process and its clients.

A frame is a 4-byte big-endian length and that many bytes of UTF-8 JSON. Requests go up as
{"op": "submit", "id": int, "inputs": {tensor name: value}} and {"op": "cancel", "id": int}; what
they gained comes down, one frame an engine step, as {"op": "updates", "items": [[id, fields], ...]}
where fields are output tensor names and values, plus "final": true and "error" on the last.

Between our side and TensorRT-LLM's, a frame with "num_bytes" has so many raw bytes behind it.
"""

import json
import socket
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

MAX_FRAME_BYTES = 64 << 20
READ_BYTES = 1 << 16
HEADER = struct.Struct(">I")
# What a request hears that comes while the server stops, or outlives its drain.
STOPPING = {"code": "shutting_down", "message": "the server is stopping; try another one."}
Frame = dict[str, Any]
Item = tuple[int, dict[str, Any]]


class FrameTooLargeError(Exception):
    """A frame that the other side would refuse."""


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame.

    Raises:
        FrameTooLargeError: the peer would take it for a broken one, and disconnect.
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    body = json.dumps(frame, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise FrameTooLargeError(f"{len(body)} bytes in one piece; the limit is {MAX_FRAME_BYTES}.")
    return HEADER.pack(len(body)) + body


class FrameReader:
    """Takes bytes as they come and gives the frames that they complete; it reads nothing itself."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes and yield the frames that have come whole.

        Raises:
            ConnectionError: the peer breaks the protocol.
        """
        self._buffer += data
        return self._frames()

    def end(self) -> None:
        """Raise ConnectionError where the peer's last frame lacks a part."""
        if self._buffer:
            raise ConnectionError("the peer closed in the middle of a frame.")

    def _frames(self) -> Iterator[Frame]:
        buffer = self._buffer
        while len(buffer) >= HEADER.size:
            size = int(HEADER.unpack_from(buffer)[0])
            if size > MAX_FRAME_BYTES:
                raise ConnectionError(f"a frame of {size} bytes exceeds {MAX_FRAME_BYTES}.")
            end = HEADER.size + size
            if len(buffer) < end:
                return
            body = buffer[HEADER.size : end]
            del buffer[:end]
            yield _decode(body)


def read_frames(connection: socket.socket) -> Iterator[Frame]:
    """Yield the frames that arrive until the peer closes.

    Raises:
        ConnectionError: the peer breaks the protocol.
        OSError: the socket fails.
    """
    reader = FrameReader()
    while data := connection.recv(READ_BYTES):
        yield from reader.feed(data)
    reader.end()


def read_frame(stream: BinaryIO) -> tuple[Frame, bytes] | None:
    """Return the next frame of a stream and the raw bytes behind it; None at the stream's end.

    Raises:
        ConnectionError: the peer breaks the protocol, or closes in the middle of a frame.
    """
    header = stream.read(HEADER.size)
    if not header:
        return None
    reader = FrameReader()
    found = list(reader.feed(header))  # which checks the size
    if len(header) == HEADER.size and not found:
        found = list(reader.feed(stream.read(HEADER.unpack(header)[0])))
    reader.end()
    num_bytes = found[0].get("num_bytes", 0)
    if type(num_bytes) is not int or not 0 <= num_bytes <= MAX_FRAME_BYTES:
        raise ConnectionError(f"a frame has {num_bytes!r} bytes behind it.")
    data = stream.read(num_bytes)
    if len(data) < num_bytes:
        raise ConnectionError("the peer closed in the middle of a frame.")
    return found[0], data


def updates(frame: Frame) -> list[Item]:
    """Return what an engine's frame brings to requests, by their numbers.

    Raises:
        ConnectionError: it is no "updates" frame, or has another shape than those.
    """
    items = frame.get("items")
    if frame.get("op") != "updates" or not isinstance(items, list):
        raise ConnectionError(f"an engine's frame is no updates: {frame.get('op')!r}.")
    return [_item(item) for item in items]


def max_seq_len(frame: Frame) -> int:
    """Return an engine's limit from its "status" frame; ConnectionError where it has none."""
    limit = frame.get("max_seq_len")
    if not isinstance(limit, int):
        raise ConnectionError("an engine's status has no max_seq_len.")
    return limit


def _item(item: Any) -> Item:
    """Return one request's number and fields; an error in them has its code and message."""
    match item:
        case [int(number), {"error": {"code": str(), "message": str()}, **_rest}]:
            return number, item[1]
        case [int(number), dict(fields)] if "error" not in fields:
            return number, fields
    raise ConnectionError("an update is no number and fields.")


def _decode(body: bytearray) -> Frame:
    """Return the frame in `body`; ConnectionError for what is none."""
    try:
        frame = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConnectionError(f"a frame is not JSON: {error}.") from error
    if not isinstance(frame, dict):
        raise ConnectionError("a frame is not a JSON object.")
    return frame
