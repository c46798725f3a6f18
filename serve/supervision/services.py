"""The processes of a server: the engine's own, Triton before it, and the front before both."""

import dataclasses
import math
import os
import sys
from functools import partial

from nemotrt.commandline.options import words_of
from nemotrt.serve.engine.probe import EngineProbe
from nemotrt.serve.logs.files import LogFile, copier
from nemotrt.serve.processes.child_process import Copy
from nemotrt.serve.processes.run_folder import RunFolder
from nemotrt.serve.supervision.front_probe import STOP_NOTICE, is_front_live
from nemotrt.serve.supervision.serve_spec import ServeSpec
from nemotrt.serve.supervision.service import ServiceSpec
from nemotrt.serve.triton.address import TritonAddress, TritonProtocol
from nemotrt.serve.triton.model.relay import SOCKET_VARIABLE
from nemotrt.serve.triton.probe import TritonProbe
from nemotrt.serve.triton.runtime import TritonRuntime
from nemotrt.serve.triton.server import clean_shared_memory, server_command
from nemotrt.serve.triton.stub import TritonStub
from nemotrt.serve.triton.workspace import TritonWorkspace

STOP_MARGIN_S = 10.0  # for sending what a drain's last step brought
TRITON_START_S = 120.0


def engine_service(spec: ServeSpec, folder: RunFolder) -> ServiceSpec:
    """Return the engine process; told to stop, it drains first."""
    command = [sys.executable, "-m", spec.engine_module, str(spec.engine.absolute())]
    command += ["--socket", str(folder.engine_socket)]
    command += [*words_of(spec.process), *words_of(spec.logs)]
    probe = EngineProbe(folder.engine_socket)
    return ServiceSpec(
        name="engine",
        command=lambda: command,
        log=folder.log("engine"),
        is_ready=probe.is_ready,
        is_well=probe.is_well,
        environment={},
        stop_timeout_s=spec.process.drain_s + STOP_MARGIN_S,
        copy=_copier("engine", spec, folder),
        after=lambda: folder.engine_socket.unlink(missing_ok=True),
    )


def triton_service(
    spec: ServeSpec,
    folder: RunFolder,
    runtime: TritonRuntime,
    workspace: TritonWorkspace,
    address: TritonAddress,
) -> ServiceSpec:
    """Return Triton; it is stopped after the engine has drained, so it has little left to send."""
    server = server_command(runtime, workspace, address, exit_timeout_s=math.ceil(STOP_MARGIN_S))
    socket_path = str(folder.engine_socket)
    probe = TritonProbe(address, spec.front.model_name)

    def clean_up() -> None:
        clean_shared_memory(os.getpid())
        address.remove_sockets()

    return ServiceSpec(
        name="triton",
        command=lambda: server,
        log=folder.log("triton"),
        is_ready=probe.is_ready,
        is_well=probe.is_well,
        is_whole=TritonStub().is_alive,
        before_stop=probe.close,  # Triton waits for its connections
        environment={**runtime.environment(), SOCKET_VARIABLE: socket_path},
        start_timeout_s=TRITON_START_S,
        stop_timeout_s=2 * STOP_MARGIN_S,
        copy=_copier("triton", spec, folder),
        after=clean_up,
    )


def front_service(
    spec: ServeSpec, folder: RunFolder, triton: TritonAddress | None, port: int
) -> ServiceSpec:
    """Return the OpenAI front; it is stopped last, so that it passes on how requests end.

    It is told at the beginning, and from then on says so to whoever asks for its health.
    """
    module = "nemotrt.serve.front.process"
    command = [sys.executable, "-m", module, str(spec.engine.absolute())]
    command += ["--engine-socket", str(folder.engine_socket)]
    command += words_of(dataclasses.replace(spec.front, port=port)) + words_of(spec.logs)
    for adapter in spec.process.opening.lora:
        command += ["--adapter", adapter.name]
    if triton is not None:
        command += ["--triton", triton.target(TritonProtocol.GRPC)]
    is_tls = spec.front.tls_certificate is not None
    is_live = partial(is_front_live, spec.front.host, port, is_tls=is_tls)
    return ServiceSpec(
        name="front",
        command=lambda: command,
        log=folder.log("front"),
        is_ready=is_live,
        is_well=is_live,
        environment={},
        start_timeout_s=TRITON_START_S,
        stop_timeout_s=2 * STOP_MARGIN_S,
        copy=_copier("front", spec, folder),
        stop_notice=STOP_NOTICE,
    )


def _copier(name: str, spec: ServeSpec, folder: RunFolder) -> Copy:
    """Return what takes a process's lines into its log file."""
    return copier(name, LogFile(folder.log(name), spec.log_files), spec.logs)
