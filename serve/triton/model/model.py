"""The decoupled model: `execute` validates and hands over; the engine runs in its own process.

The supervisor has started that process and says where it listens; in a Triton of somebody else's
the model starts it, from what config.pbtxt says.
"""

import difflib
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found, unused-ignore]

from nemotrt.wire.frames import FrameTooLargeError
from nemotrt.wire.tensors import (
    INPUT_BY_NAME,
    OUTPUTS,
    check_bytes,
    check_elements,
    input_value,
)
from nemotrt.wire.trail import LEGAL, read_trail

from .engine_process import EngineProcess
from .relay import SOCKET_VARIABLE, EngineUnavailableError, Relay
from .responder import Channel, Fields, Responder

PYTHON_VARIABLE = "NEMOTRT_PYTHON"  # an interpreter that has nemotrt
PARAMETERS = {
    *LEGAL,
    "triton_enable_empty_final_response",
}  # the latter is gRPC's, and Triton's own
DTYPES = {"STRING": np.object_, "INT32": np.int32, "FP32": np.float32}
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Connect to the engine process, once it is ready."""
        self._engine: EngineProcess | None = None
        path = os.environ.get(SOCKET_VARIABLE)
        if path is None:
            self._engine = start_engine(json.loads(args["model_config"]).get("parameters", {}))
            path = self._engine.socket_path
        self._relay = Relay(path)
        self._responder = Responder(respond, self._relay.cancel)
        self._by_name: dict[str, Channel] = {}

    def execute(self, requests: list[Any]) -> None:
        """Hand each request to the engine; responses come later, through its sender."""
        for request in requests:
            self._submit(request)

    def finalize(self) -> None:
        """Send what is left and disconnect."""
        self._relay.close()
        self._responder.close()
        if self._engine is not None:
            self._engine.close()

    def _submit(self, request: Any) -> None:
        """Read, check and submit one request; every fault goes to its own client."""
        channel = self._responder.open(request.get_response_sender())
        try:
            inputs = read_inputs(request, self._relay.max_seq_len)
            if inputs.get("stop"):
                self._stop(request.request_id())
                channel.push({"text_output": "", "final": True})
                return
            parameters = parameters_of(request)
            check_parameters(parameters)
            request_id = self._relay.submit(inputs, channel.push, read_trail(parameters))
        except (ValueError, FrameTooLargeError) as error:
            channel.push(failure("invalid_request", error))
            return
        except EngineUnavailableError as error:
            channel.push(failure("engine_unavailable", error))
            return
        self._responder.watch(channel, request_id)
        self._name(request.request_id(), channel)

    def _name(self, name: str, channel: Channel) -> None:
        """Remember a request by the client's id, so that `stop` finds it."""
        if name:
            self._by_name[name] = channel
        if len(self._by_name) > 1024:
            self._by_name = {n: c for n, c in self._by_name.items() if not c.is_done}

    def _stop(self, name: str) -> None:
        """End the live request that has the client's id `name`, if there is one."""
        channel = self._by_name.pop(name, None)
        if channel is not None and not channel.is_done:
            self._relay.cancel(channel.request_id)


def start_engine(parameters: dict[str, Any]) -> EngineProcess:
    """Return the engine's process, ready, from the parameters of config.pbtxt."""
    given = {name: value["string_value"] for name, value in parameters.items()}
    if "engine" not in given:
        raise pb_utils.TritonModelException(
            f"no engine to use: {SOCKET_VARIABLE} is not set, and config.pbtxt names none."
        )
    folder = os.path.dirname(os.path.abspath(__file__))
    engine = os.path.join(folder, given["engine"])  # an absolute path stays what it is
    python = os.environ.get(PYTHON_VARIABLE) or given.get("python", "python3")
    try:
        process = EngineProcess(engine, python, given.get("engine_options", ""))
        process.wait_ready()
    except (OSError, RuntimeError) as error:
        raise pb_utils.TritonModelException(f"cannot start {engine}: {error}") from error
    return process


def read_inputs(request: Any, max_seq_len: Callable[[], int]) -> dict[str, Any]:
    """Return a request's tensors by name, as plain values.

    Raises:
        ValueError: a tensor is unknown, has a wrong size or type, is too large for any request,
            or is no UTF-8.
    """
    inputs = {}
    for tensor in request.inputs():
        array = tensor.as_numpy()
        spec = INPUT_BY_NAME.get(tensor.name())
        if spec is not None and spec.rank != array.ndim:
            raise ValueError(f"{tensor.name()} must have 1 dimension, got {array.ndim}.")
        check_elements(tensor.name(), array.size, max_seq_len)
        elements = array.reshape(-1).tolist()
        if spec is not None and spec.type == "STRING":
            check_bytes(tensor.name(), sum(map(len, elements)), max_seq_len)
        inputs[tensor.name()] = input_value(tensor.name(), elements)
    if request.timeout():
        inputs.setdefault("timeout_ms", max(1, request.timeout() // 1000))
    return inputs


def parameters_of(request: Any) -> dict[str, Any]:
    """Return a request's parameters, among which its trail is; its id where they name none.

    The id of a `generate` body comes as a parameter.
    """
    told = json.loads(request.parameters() or "{}")
    named = told.pop("id", "")
    return {"request_id": request.request_id() or named, **told}


def check_parameters(names: Iterable[str]) -> None:
    """Raise ValueError for a parameter without effect.

    What a body of `generate` holds beside tensors comes as parameters, and `parameters` does.
    """
    for name in names:
        if name in INPUT_BY_NAME:
            raise ValueError(f"the parameter {name} is a tensor: give it beside text_input.")
        if name not in PARAMETERS:
            known = difflib.get_close_matches(name, INPUT_BY_NAME, 1)
            nearest = f"; the nearest tensor is {known[0]}" if known else ""
            raise ValueError(f"{name[:80]} is not supported{nearest}; leave it out.")


def failure(code: str, error: Exception) -> Fields:
    """Return the last fields of a request that failed."""
    return {"final": True, "error": {"code": code, "message": str(error)}}


def respond(sender: Any, fields: Fields) -> None:
    """Send one response; the last one carries Triton's final flag."""
    flags = FINAL if fields.get("final") else 0
    error = fields.get("error")
    if error is not None:
        fault = pb_utils.TritonError(f"{error['code']}: {error['message']}")
        sender.send(pb_utils.InferenceResponse(error=fault), flags=flags)
        return
    tensors = [tensor(spec, fields[spec.name]) for spec in OUTPUTS if spec.name in fields]
    sender.send(pb_utils.InferenceResponse(tensors), flags=flags)


def tensor(spec: Any, value: Any) -> Any:
    """Return an output tensor; strings become bytes."""
    values = value if spec.is_list else [value]
    if spec.type == "STRING":
        values = [item.encode() for item in values]
    return pb_utils.Tensor(spec.name, np.array(values, dtype=DTYPES[spec.type]))
