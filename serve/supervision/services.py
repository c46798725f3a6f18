"""The processes of a server: the engine's own, Triton before it, and the front before both."""

import math
import os
import sys
from pathlib import Path

from nemotrt.serve.engine.probe import EngineProbe
from nemotrt.serve.processes.run_folder import RunFolder
from nemotrt.serve.supervision.front_probe import STOP_NOTICE, FrontProbe
from nemotrt.serve.supervision.serve_spec import ServeSpec
from nemotrt.serve.supervision.service import ServiceSpec
from nemotrt.serve.triton.address import Protocol, TritonAddress
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
    command += ["--socket", str(folder.engine_socket), "--drain-s", str(spec.drain_s)]
    command += ["--max-queue-size", str(spec.queue.max_queue_size)]
    command += ["--max-queue-s", str(spec.queue.max_queue_s)]
    command += ["--max-chunks-per-s", str(spec.max_chunks_per_s)]
    if spec.target_itl_ms is not None:
        command += ["--target-itl-ms", str(spec.target_itl_ms)]
    if spec.threads is not None:
        command += ["--threads", str(spec.threads)]
    if spec.checkpoint is not None:
        command += ["--checkpoint", spec.checkpoint]
    if spec.verify:
        command += ["--verify"]
    probe = EngineProbe(folder.engine_socket)
    return ServiceSpec(
        name="engine",
        command=lambda: command,
        log=folder.log("engine"),
        is_ready=probe.is_ready,
        is_well=probe.is_well,
        environment={},
        stop_timeout_s=spec.drain_s + STOP_MARGIN_S,
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
    probe = TritonProbe(address, spec.model_name)

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
    command += [f"--model-name={spec.model_name}", "--engine-socket", str(folder.engine_socket)]
    command += [f"--host={spec.host}", "--port", str(port)]
    if spec.max_body_bytes is not None:
        command += ["--max-body-bytes", str(spec.max_body_bytes)]
    if triton is not None:
        command += ["--triton", triton.target(Protocol.GRPC)]
    if spec.reasoning_in_content:
        command += ["--reasoning-in-content"]
    files: dict[str, Path | None] = {
        "--api-key-file": spec.api_key_file,
        "--tls-certificate": spec.tls_certificate,
        "--tls-key": spec.tls_key,
    }
    for option, path in files.items():
        command += [] if path is None else [option, str(path.absolute())]
    probe = FrontProbe(spec.host, port, is_tls=spec.tls_certificate is not None)
    return ServiceSpec(
        name="front",
        command=lambda: command,
        log=folder.log("front"),
        is_ready=probe.is_live,
        is_well=probe.is_live,
        environment={},
        start_timeout_s=TRITON_START_S,
        stop_timeout_s=2 * STOP_MARGIN_S,
        stop_notice=STOP_NOTICE,
    )
