"""Tensors of any name, type, shape and bytes, straight into gRPC: errors, and a living server."""

import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2, service_pb2_grpc

from nemotrt.serve.front.upstream.triton_upstream import infer_request
from nemotrt.serve.processes.run_folder import RunFolder, ServerState
from nemotrt.wire.tensors import INPUTS, TensorSpec

pytestmark = pytest.mark.triton
LOST = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
TYPES = ("BOOL", "INT8", "UINT8", "INT32", "UINT32", "INT64", "UINT64", "FP16", "FP32", "BYTES")
NAMES = st.sampled_from([spec.name for spec in INPUTS]) | st.text(max_size=12)
DIMS = st.lists(st.integers(-2, 4) | st.sampled_from([2**31 - 1, 2**60, -(2**63)]), max_size=3)
STRINGS = st.lists(st.binary(max_size=12), max_size=3).map(
    lambda items: b"".join(struct.pack("<I", len(item)) + item for item in items)
)
TENSORS = st.tuples(
    NAMES,
    st.sampled_from(TYPES) | st.text(max_size=6),
    DIMS,
    st.binary(max_size=24) | STRINGS,
)
# The right type and shape, so that these get as far as the engine's own checks.
WELL_FORMED = {
    "STRING": st.text(max_size=40),
    "BOOL": st.booleans(),
    "INT32": st.integers(0, 20) | st.integers(-(2**31), 2**31 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
    "FP32": st.floats(0, 2, width=32) | st.floats(width=32),
}


def one_value(spec: TensorSpec) -> st.SearchStrategy[tuple[str, Any]]:
    values = WELL_FORMED[spec.type]
    return st.tuples(st.just(spec.name), st.lists(values, max_size=3) if spec.is_list else values)


VALUES = st.lists(st.sampled_from(INPUTS).flatmap(one_value), max_size=5).map(dict)


@pytest.fixture(scope="module")
def stub(server: ServerState) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc_url) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def first_answer(stub: Any, request: Any) -> str:
    """Return the first answer's error, "" for a good one; the rest is cancelled."""
    call = stub.ModelStreamInfer(iter([request]), timeout=20)
    try:
        for answer in call:
            assert "is not healthy" not in answer.error_message
            return str(answer.error_message)
        return "the stream ended"
    except grpc.RpcError as error:
        assert error.code() not in LOST, error.details()
        return str(error.details())
    finally:
        call.cancel()


def is_well(stub: Any) -> bool:
    return not first_answer(stub, infer_request("llm", {"text_input": "The", "max_tokens": 1}))


SETTINGS = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@SETTINGS
@given(st.lists(TENSORS, max_size=4), st.booleans())
@example([("text_input", "BYTES", [1], struct.pack("<I", 2**31 - 1) + b"x")], False)
@example([("text_input", "BYTES", [1], struct.pack("<I", 3) + b"\xff\xfe\xfd")], False)
@example([("text_input", "BYTES", [2**31 - 1], b"")], False)
@example([("input_ids", "INT32", [2**61], b"")], False)
@example([("max_tokens", "INT32", [2**62], b"")], True)
@example([("stop_words", "BYTES", [2**62], b"")], True)
@example([("stop_words", "BYTES", [2**62 + 1], struct.pack("<I", 1) + b"x")], True)
@example([("input_ids", "INT32", [-1], b"\0" * 4)], False)
@example([("max_tokens", "INT32", [1], b"\0" * 4000)], True)
def test_any_tensors_at_all(stub, tensors, has_text) -> None:
    inputs = {"text_input": "The", "max_tokens": 1} if has_text else {}
    request = infer_request("llm", inputs)
    for name, datatype, shape, raw in tensors:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)
    first_answer(stub, request)


@SETTINGS
@given(VALUES)
def test_any_values_of_the_right_type(stub, values) -> None:
    values = {"text_input": "The", "max_tokens": 2} | values | {"stream": True}
    request = infer_request("llm", values)
    error = first_answer(stub, request)
    assert "engine_failed" not in error, error


def test_a_huge_text(stub) -> None:
    error = first_answer(stub, infer_request("llm", {"text_input": "x" * (32 << 20)}))
    assert "invalid_request" in error


def test_fewer_contents_than_tensors(stub) -> None:
    request = service_pb2.ModelInferRequest(model_name="llm")
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1])
    assert first_answer(stub, request)


def test_the_server_has_lived_through_it(stub, server) -> None:
    assert is_well(stub)
    state = RunFolder(Path(server.run_folder)).read_state()
    assert state is not None
    assert state.restarts == {"engine": 0, "triton": 0, "front": 0}
    assert state.processes == server.processes


@pytest.fixture
def others(server, solo) -> Iterator[list[tuple[int, str]]]:
    """A client of the OpenAI endpoint that asks again and again; the statuses and texts it gets."""
    answers: list[tuple[int, str]] = []
    is_over = threading.Event()

    def ask() -> None:
        body = {"model": "llm", "prompt": "The", "max_tokens": 16, "temperature": 0}
        with httpx.Client(base_url=server.openai_url, timeout=30) as client:
            while not is_over.wait(0.02):
                answer = client.post("completions", json=body)
                told = answer.json()
                text = told["choices"][0]["text"] if answer.is_success else told["error"]["message"]
                answers.append((answer.status_code, text))

    thread = threading.Thread(target=ask)
    thread.start()
    yield answers
    is_over.set()
    thread.join()
    assert answers[-1][0] == 200
    assert {text for status, text in answers if status == 200} == {
        solo("The", max_tokens=16)["text"]
    }
    assert all(text for _, text in answers)
    assert {status for status, _ in answers} <= {200, 500, 502, 503}


@pytest.mark.parametrize(
    ("shape", "raw"), [([2**62], b""), ([2**62 + 1], b"\7\0\0\0")], ids=["empty", "one"]
)
def test_the_tensor_that_kills_tritons_stub_costs_seconds(stub, server, others, shape, raw) -> None:
    """4 * 2^62 bytes overflow to the 0 that came; Triton 2.51 lets it through, numpy throws."""
    state = RunFolder(Path(server.run_folder))
    before = state.read_state()
    assert before is not None
    request = infer_request("llm", {})
    request.inputs.add(name="input_ids", datatype="INT32", shape=shape)
    request.raw_input_contents.append(raw)
    with pytest.raises(AssertionError):
        first_answer(stub, request)
    until_s = time.monotonic() + 60
    num_starts = before.restarts["triton"] + 1
    while (now := state.read_state()) is None or not (
        now.restarts["triton"] == num_starts and now.status == "ready"
    ):
        assert time.monotonic() < until_s
        time.sleep(0.05)
    assert now.restarts == {"engine": 0, "triton": num_starts, "front": 0}
    assert is_well(stub)
    num_answers = len(others)
    while [status for status, _ in others[num_answers:]][-3:] != [200] * 3:
        assert time.monotonic() < until_s, others[-3:]
        time.sleep(0.05)
