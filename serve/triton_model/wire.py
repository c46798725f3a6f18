"""Frames on the socket between the engine process and its clients.

A frame is a 4-byte big-endian length and that many bytes of UTF-8 JSON. Requests go up as
{"op": "submit", "id": int, "inputs": {tensor name: value}} and {"op": "cancel", "id": int}; what
they gained comes down, one frame an engine step, as {"op": "updates", "items": [[id, fields], ...]}
where fields are output tensor names and values, plus "final": true and "error" on the last.
"""

import json
import socket
import struct
from collections.abc import Iterator
from typing import Any

MAX_FRAME_BYTES = 64 << 20
HEADER = struct.Struct(">I")
Frame = dict[str, Any]


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame."""
    body = json.dumps(frame, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return HEADER.pack(len(body)) + body


def read_frames(connection: socket.socket) -> Iterator[Frame]:
    """Yield the frames that arrive until the peer closes.

    Raises:
        ConnectionError: the peer breaks the protocol.
        OSError: the socket fails.
    """
    with connection.makefile("rb", buffering=1 << 16) as stream:
        while header := stream.read(HEADER.size):
            if len(header) < HEADER.size:
                raise ConnectionError("the peer closed in the middle of a frame.")
            (size,) = HEADER.unpack(header)
            if size > MAX_FRAME_BYTES:
                raise ConnectionError(f"a frame of {size} bytes exceeds {MAX_FRAME_BYTES}.")
            body = stream.read(size)
            if len(body) < size:
                raise ConnectionError("the peer closed in the middle of a frame.")
            yield _decode(body)


def _decode(body: bytes) -> Frame:
    """Return the frame in `body`."""
    try:
        frame = json.loads(body)
    except ValueError as error:
        raise ConnectionError(f"a frame is not JSON: {error}.") from error
    if not isinstance(frame, dict):
        raise ConnectionError("a frame is not a JSON object.")
    return frame
