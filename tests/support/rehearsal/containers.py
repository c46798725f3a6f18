"""`docker` in a namespace: what a compose file or a command line mounts is a namespace within.

usage: docker build ... | docker compose up --detach --wait|logs|down | docker run ...

An image is the machine's own system with what pip installed, and the variables of its Dockerfile.
Ports are the host's: a container shares its network.
"""

import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from nemotrt.serve.triton.runtime import CONTAINER_FOLDER, find_runtime
from support.rehearsal import driver
from support.rehearsal.image import OWN, PREFIX
from support.rehearsal.machine import installed
from support.rehearsal.namespace import SHARED_MEMORY, Access, Mount, Namespace

STATE = Path(".containers")  # beside the compose file: a log, and a process group
SIZES = {"gb": 1 << 30, "g": 1 << 30, "mb": 1 << 20}
# As the Dockerfile's last stages have them; a test holds the two together.
IMAGE_ENVIRONMENT = {
    "PATH": "/opt/nemotrt/bin:/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "NEMOTRT_RUN_DIR": "/run/nemotrt",
}
WAIT_S = 120


def num_bytes(text: str) -> int:
    """Return the bytes of a size such as 1gb."""
    found = re.fullmatch(r"(\d+)(gb?|mb)", text)
    assert found, text
    return int(found[1]) * SIZES[found[2]]


def with_gpu(namespace: Namespace) -> Namespace:
    """Return it with the driver that NVIDIA's toolkit brings in, if this host has one."""
    if not driver.PLACE.exists():
        return namespace
    namespace.mounts[str(driver.PLACE)] = Mount(Access.READ, driver.PLACE)
    told = driver.environment()
    if before := namespace.environment.get("LD_LIBRARY_PATH"):
        told["LD_LIBRARY_PATH"] += f":{before}"
    namespace.environment.update(told)
    return namespace


def of_service(service: dict[str, Any]) -> Namespace:
    """Return what a service of a compose file sees."""
    mounts = installed(PREFIX)
    for text in service.get("tmpfs", ()):
        target, _, options = text.partition(":")
        mode = dict(item.split("=") for item in options.split(",") if item).get("mode", "1777")
        mounts[target] = Mount(Access.MEMORY, mode=mode)
    size = num_bytes(service.get("shm_size", "")) if "shm_size" in service else 64 << 20
    mounts[SHARED_MEMORY] = Mount(Access.MEMORY, None, size, "1777")
    for volume in service.get("volumes", ()):
        access = Access.READ if volume.get("read_only") else Access.WRITE
        mounts[volume["target"]] = Mount(access, Path(filled(volume["source"])))
    given = {name: filled(value) for name, value in service.get("environment", {}).items()}
    namespace = Namespace(
        mounts,
        IMAGE_ENVIRONMENT | given,
        is_inner=True,
        is_root_read_only=bool(service.get("read_only")),
    )
    return with_gpu(namespace) if "deploy" in service else namespace


def filled(text: str) -> str:
    """Return a value as compose reads it: ${NAME:-default}, and $$ for a dollar."""

    def value(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else os.environ.get(found[1]) or found[2]

    return re.sub(r"\$\$|\$\{(\w+):-([^}]*)\}", value, text)


def up() -> int:
    """Start the file's one service, and wait for its health check."""
    [service] = yaml.safe_load(Path("compose.yaml").read_text())["services"].values()
    command = [filled(word) for word in service["command"]]
    STATE.mkdir(exist_ok=True)
    with (STATE / "log").open("wb") as log:
        process = subprocess.Popen(
            of_service(service).command(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (STATE / "pid").write_text(str(process.pid))
    check = service["healthcheck"]["test"][1:]
    until_s = time.monotonic() + WAIT_S
    while time.monotonic() < until_s and process.poll() is None:
        if subprocess.run(check, capture_output=True, check=False).returncode == 0:
            return 0
        time.sleep(0.2)
    down()
    logs()
    return 1


def logs() -> int:
    """Print the service's log."""
    print((STATE / "log").read_text(), file=sys.stderr)
    return 0


def down() -> int:
    """End the service, and wait until nobody answers for it."""
    pid = int((STATE / "pid").read_text())
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)
    until_s = time.monotonic() + WAIT_S
    with suppress(ProcessLookupError):  # none of the group is left
        while time.monotonic() < until_s:
            os.killpg(pid, 0)
            time.sleep(0.05)
    return 0


def run(words: list[str]) -> int:
    """Run a command in NVIDIA's image: Triton where it has it, nemotrt beside it."""
    mounts = installed(PREFIX)
    mounts["/tmp"] = Mount(Access.MEMORY, mode="1777")
    has_gpu = False
    while words[0].startswith("-"):
        option = words.pop(0)
        value = "" if option == "--rm" else words.pop(0)
        match option:
            case "--shm-size":
                mounts[SHARED_MEMORY] = Mount(Access.MEMORY, None, num_bytes(value), "1777")
            case "-v":
                source, target, access = value.split(":")
                assert access == "ro"
                mounts[target] = Mount(Access.READ, Path(source))
            case "--gpus":
                has_gpu = value == "all"
            case "--network":
                assert value == "host"
            case _:
                assert option == "--rm", option
    mounts[str(CONTAINER_FOLDER)] = Mount(Access.READ, PREFIX / OWN / "tritonserver")
    runtime = find_runtime()
    environment = {
        "PATH": f"{CONTAINER_FOLDER}/bin:{runtime.folder}/bin:/usr/bin:/bin",
        "HOME": "/tmp",
        "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
    }
    namespace = Namespace(mounts, environment, is_inner=True, is_root_read_only=False)
    command = (with_gpu(namespace) if has_gpu else namespace).command(words[1:])
    os.execvp(command[0], command)


def main(words: list[str]) -> int:
    """Carry out a command line; return the exit code."""
    match words:
        case ["build", *_]:
            return 0
        case ["compose", "up", *options]:
            assert set(options) == {"--detach", "--wait"}
            return up()
        case ["compose", "logs"]:
            return logs()
        case ["compose", "down"]:
            return down()
        case ["run", *rest]:
            return run(rest)
    raise SystemExit(f"docker {' '.join(words)}: not known here")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
