"""The tritonserver command line, its shared memory, and what its health really is."""

import http.client
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from nemotrt.serve.run_folder import is_alive
from nemotrt.serve.triton_runtime import TritonRuntime

SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_PREFIX = "nemotrt"
# Administration that a client of the model never needs; the key is random and told to nobody.
CLOSED_APIS = "model-repository,shared-memory,trace,logging"
PROBE_TIMEOUT_S = 5.0
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class TritonPorts:
    """Where Triton listens: loopback, since this version must not be exposed."""

    http: int
    grpc: int
    metrics: int
    host: str = LOOPBACK


def shared_memory_prefix(pid: int) -> str:
    """Return the name that the stubs' shared memory regions of server `pid` begin with."""
    return f"{SHARED_MEMORY_PREFIX}_{pid}_"


def server_command(
    runtime: TritonRuntime, repository: Path, ports: TritonPorts, *, exit_timeout_s: int
) -> list[str]:
    """Return the command that serves `repository`."""
    key = secrets.token_hex(32)
    return [
        str(runtime.server),
        f"--model-repository={repository}",
        f"--backend-directory={runtime.backends}",
        f"--cache-directory={runtime.caches}",
        f"--http-address={ports.host}",
        f"--http-port={ports.http}",
        f"--grpc-address={ports.host}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={ports.host}",
        f"--metrics-port={ports.metrics}",
        f"--http-restricted-api={CLOSED_APIS}:admin-key={key}",
        f"--grpc-restricted-protocol={CLOSED_APIS}:admin-key={key}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix(os.getpid())}",
        f"--exit-timeout-secs={exit_timeout_s}",
        "--allow-gpu-metrics=false",
        "--disable-auto-complete-config",
    ]


def clean_shared_memory(pid: int) -> None:
    """Remove the regions of server `pid` and those of servers that are no more."""
    for path in SHARED_MEMORY.glob(f"{SHARED_MEMORY_PREFIX}_*"):
        owner = path.name.split("_")[1]
        if owner == str(pid) or (owner.isdecimal() and not is_alive(int(owner))):
            path.unlink(missing_ok=True)


def is_model_ready(ports: TritonPorts, model_name: str) -> bool:
    """Whether Triton says that the model is ready; it also says so of one whose stub is dead."""
    try:
        return _request(ports, "GET", f"/v2/models/{model_name}/ready")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def is_stub_alive(ports: TritonPorts, model_name: str) -> bool:
    """Whether the model's own process answers: a `stop` for no request goes to it and back."""
    try:
        path = f"/v2/models/{model_name}/generate"
        return _request(ports, "POST", path, {"stop": True})[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def _request(
    ports: TritonPorts, method: str, path: str, body: dict[str, bool] | None = None
) -> tuple[int, bytes]:
    """Return the status and body of one HTTP exchange with Triton."""
    connection = http.client.HTTPConnection(ports.host, ports.http, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
