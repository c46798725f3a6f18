"""Tensors of any name, type, shape and bytes, straight into gRPC: errors, and a living server."""

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2, service_pb2_grpc

from nemotrt.serve.front.triton_upstream import infer_request
from nemotrt.serve.run_folder import RunFolder, ServerState
from nemotrt.serve.triton_model.tensors import INPUTS, TensorSpec

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


def test_the_tensor_that_kills_tritons_stub_costs_seconds(stub, server) -> None:
    """4 * 2^62 bytes overflow to the 0 that came; Triton 2.51 lets it through, numpy throws."""
    request = infer_request("llm", {})
    request.inputs.add(name="input_ids", datatype="INT32", shape=[2**62])
    request.raw_input_contents.append(b"")
    with pytest.raises(AssertionError):
        first_answer(stub, request)
    until_s = time.monotonic() + 60
    state = RunFolder(Path(server.run_folder))
    while (now := state.read_state()) is None or not (
        now.restarts["triton"] == 1 and now.status == "ready"
    ):
        assert time.monotonic() < until_s
        time.sleep(0.05)
    assert now.restarts == {"engine": 0, "triton": 1, "front": 0}
    assert is_well(stub)
