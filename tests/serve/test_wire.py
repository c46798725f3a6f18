import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.wire.frames import HEADER, MAX_FRAME_BYTES, FrameReader, encode, read_frames
from nemotrt.wire.tensors import (
    INPUTS,
    MIN_ELEMENTS,
    MIN_TEXT_BYTES,
    OUTPUTS,
    check_bytes,
    check_elements,
    input_value,
    merge,
)

FRAMES = st.lists(st.dictionaries(st.text(), st.integers() | st.text()), max_size=5)


def received(data: bytes):
    ours, theirs = socket.socketpair()

    def send() -> None:
        with theirs:
            theirs.sendall(data)

    thread = threading.Thread(target=send)
    thread.start()
    with ours:
        try:
            return list(read_frames(ours))
        finally:
            thread.join()


@given(FRAMES)
def test_frames_round_trip(frames) -> None:
    assert received(b"".join(encode(frame) for frame in frames)) == frames


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0",
        HEADER.pack(9) + b"{}",
        HEADER.pack(MAX_FRAME_BYTES + 1),
        HEADER.pack(2) + b"[]",
        HEADER.pack(2) + b"{x",
    ],
)
def test_a_broken_frame_is_a_connection_error(data) -> None:
    with pytest.raises(ConnectionError):
        received(data)


def test_input_values_are_checked() -> None:
    assert input_value("text_input", [b"\xc3\xa9"]) == "é"
    assert input_value("input_ids", [1, 2]) == [1, 2]
    for name, elements in (("max_tokens", [1, 2]), ("max_tokens", []), ("nothing", [1])):
        with pytest.raises(ValueError, match=r"input|element"):
            input_value(name, elements)
    with pytest.raises(ValueError, match="text_input is not UTF-8"):
        input_value("text_input", [b"\xff"])


def test_a_tensors_size_is_checked_and_the_engine_asked_only_for_large_ones() -> None:
    def unknown() -> int:
        raise AssertionError("no engine is needed")

    check_elements("input_ids", MIN_ELEMENTS, unknown)
    check_bytes("text_input", MIN_TEXT_BYTES, unknown)
    check_elements("input_ids", 5000, lambda: 5000)
    check_bytes("text_input", 5 << 20, lambda: 20480)
    with pytest.raises(ValueError, match="input_ids has 5001 elements; the engine holds 5000"):
        check_elements("input_ids", 5001, lambda: 5000)
    with pytest.raises(ValueError, match="text_input has 5242881 bytes"):
        check_bytes("text_input", (5 << 20) + 1, lambda: 20480)


def test_merging_appends_what_grows_and_replaces_the_rest() -> None:
    fields = {"text_output": "a", "output_ids": [1]}
    merge(fields, {"text_output": "b", "output_ids": [2], "num_output_tokens": 2, "final": True})
    assert fields == {
        "text_output": "ab",
        "output_ids": [1, 2],
        "num_output_tokens": 2,
        "final": True,
    }


def test_names_are_unique() -> None:
    for specs in (INPUTS, OUTPUTS):
        assert len({spec.name for spec in specs}) == len(specs)


@given(FRAMES, st.lists(st.integers(1, 40)))
def test_frames_are_the_same_however_the_bytes_are_cut(frames, sizes) -> None:
    reader, data, found = FrameReader(), b"".join(map(encode, frames)), []
    for size in [*sizes, len(data)]:
        piece, data = data[:size], data[size:]
        found += reader.feed(piece)
    reader.end()
    assert found == frames


def test_what_came_whole_before_a_fault_is_given_first() -> None:
    reader = FrameReader()
    given = reader.feed(encode({"a": 1}) + HEADER.pack(MAX_FRAME_BYTES + 1))
    assert next(given) == {"a": 1}
    with pytest.raises(ConnectionError, match="exceeds"):
        next(given)


def test_a_frame_that_is_too_large_is_refused_before_its_body_has_come() -> None:
    reader = FrameReader()
    assert list(reader.feed(HEADER.pack(MAX_FRAME_BYTES)[:3])) == []
    with pytest.raises(ConnectionError, match="closed in the middle"):
        reader.end()
    assert list(reader.feed(HEADER.pack(MAX_FRAME_BYTES)[3:] + b"{")) == []
