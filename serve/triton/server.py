"""The tritonserver command line, and its shared memory."""

import os
import secrets
import shutil
from pathlib import Path

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.serve.processes.run_folder import is_alive
from nemotrt.serve.triton.address import TritonAddress, TritonProtocol
from nemotrt.serve.triton.runtime import TritonRuntime
from nemotrt.serve.triton.workspace import TritonWorkspace

SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_PREFIX = "nemotrt"
# Source: tried with tmpfs mounts: with 1 MiB the stub does not start, with 2 MiB it does and takes
# 1 MiB. The rest is for requests on their way.
SHARED_MEMORY_BYTES = 16 << 20
# Administration that a client of the model never needs.
CLOSED_APIS = "model-repository,shared-memory,trace,logging"


def check_shared_memory() -> None:
    """Raise EnvironmentUnfitError unless the stubs' regions have room.

    Raises:
        OSError: what there is of it is not told.
    """
    if not SHARED_MEMORY.is_dir():
        raise EnvironmentUnfitError(
            f"there is no {SHARED_MEMORY}, which Triton's stubs want: mount memory there"
        )
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < SHARED_MEMORY_BYTES:
        raise EnvironmentUnfitError(
            f"{SHARED_MEMORY} has {free / 2**20:.0f} MiB free, of the "
            f"{SHARED_MEMORY_BYTES / 2**20:.0f} MiB that Triton's stubs want: give the container "
            "more (docker run --shm-size 1g)"
        )


def shared_memory_prefix(pid: int) -> str:
    """Return the name that the stubs' shared memory regions of server `pid` begin with."""
    return f"{SHARED_MEMORY_PREFIX}_{pid}_"


def server_command(
    runtime: TritonRuntime,
    workspace: TritonWorkspace,
    address: TritonAddress,
    *,
    exit_timeout_s: int,
) -> list[str]:
    """Return the command that serves the workspace's repository."""
    command = [
        str(runtime.server),
        f"--model-repository={workspace.repository}",
        f"--backend-directory={workspace.backends}",
        f"--cache-directory={runtime.caches}",
    ]
    for protocol in TritonProtocol:
        command += [f"--{protocol}-address={address.host(protocol)}"]
        command += [f"--{protocol}-port={address.port(protocol)}"]
    # Whoever may list processes sees this key; no header can hold its line break, so it opens
    # nothing to them either.
    key = f"closed={secrets.token_hex(32)}\n"
    command += [f"--http-restricted-api={CLOSED_APIS}:{key}"]
    command += [f"--grpc-restricted-protocol={CLOSED_APIS}:{key}"]
    prefix = shared_memory_prefix(os.getpid())
    command += [f"--backend-config=python,shm-region-prefix-name={prefix}"]
    command += [f"--exit-timeout-secs={exit_timeout_s}"]
    return [*command, "--allow-gpu-metrics=false", "--disable-auto-complete-config"]


def clean_shared_memory(pid: int) -> None:
    """Remove the regions of server `pid` and those of servers that are no more."""
    for path in SHARED_MEMORY.glob(f"{SHARED_MEMORY_PREFIX}_*"):
        owner = path.name.split("_")[1]
        if owner == str(pid) or (owner.isdecimal() and not is_alive(int(owner))):
            path.unlink(missing_ok=True)
