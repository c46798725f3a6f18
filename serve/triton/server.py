"""The tritonserver command line, and the folders that it and its stubs write to."""

import os
import secrets
import shutil
import tempfile
from pathlib import Path

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.serve.processes.run_folder import is_alive
from nemotrt.serve.triton.address import TritonAddress, TritonProtocol
from nemotrt.serve.triton.runtime import TritonRuntime
from nemotrt.serve.triton.workspace import TritonWorkspace

SHARED_MEMORY = Path("/dev/shm")
# Source: triton-inference-server/python_backend r24.10, src/pb_env.cc: /tmp/python_env_XXXXXX,
# whatever TMPDIR says.
SCRATCH = Path("/tmp")
SHARED_MEMORY_PREFIX = "nemotrt"
# Source: tried with tmpfs mounts: with 1 MiB the stub does not start, with 2 MiB it does and takes
# 1 MiB. The rest is for requests on their way.
SHARED_MEMORY_BYTES = 16 << 20
# Administration that a client of the model never needs.
CLOSED_APIS = "model-repository,shared-memory,trace,logging"


def check_places() -> None:
    """Raise EnvironmentUnfitError unless the places that no option moves can be written.

    Raises:
        OSError: what there is of shared memory is not told.
    """
    try:
        with tempfile.TemporaryFile(dir=SCRATCH) as file:
            file.write(bytes(1))
    except OSError as error:
        raise EnvironmentUnfitError(
            f"Triton makes a folder in {SCRATCH}, which takes none: {error.strerror}. Make it a "
            f"folder of mode 1777 with room (docker run --tmpfs {SCRATCH}), or serve with "
            "--no-triton."
        ) from error
    _check_shared_memory()


def _check_shared_memory() -> None:
    """Raise EnvironmentUnfitError unless the stubs' regions have room."""
    if not SHARED_MEMORY.is_dir():
        raise EnvironmentUnfitError(
            f"there is no {SHARED_MEMORY}, which Triton's stubs want: mount memory there (docker "
            "run --shm-size 1g), or serve with --no-triton"
        )
    if not os.access(SHARED_MEMORY, os.W_OK | os.X_OK):
        raise EnvironmentUnfitError(
            f"{SHARED_MEMORY} can't be written, which Triton's stubs want: give it mode 1777 "
            "(docker run --shm-size 1g mounts it so), or serve with --no-triton"
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
