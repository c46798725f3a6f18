"""The folder of one running server: its state, logs and sockets, open to this user alone."""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nemotrt.errors import ConfigError

ROOT_VARIABLE = "NEMOTRT_RUN_DIR"
MAX_SOCKET_PATH_BYTES = 107  # Source: linux/un.h, sun_path
STATE_FILE = "server.json"


@dataclass(frozen=True, slots=True)
class ServerState:
    """What server.json says of a server."""

    name: str
    pid: int
    status: str  # starting, ready, restarting, stopping
    engine: str
    model_name: str
    run_folder: str  # of logs and sockets
    openai_url: str
    http_url: str | None  # Triton's, and the next two; None without it
    grpc_url: str | None
    metrics_url: str | None
    processes: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    schema_version: int = 1

    @property
    def is_alive(self) -> bool:
        """Whether the server's process is there."""
        return is_alive(self.pid)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one running server."""

    path: Path

    @property
    def engine_socket(self) -> Path:
        """Where the engine process listens."""
        return self.path / "engine.sock"

    @property
    def repository(self) -> Path:
        """The model repository that Triton loads."""
        return self.path / "repository"

    def log(self, service: str) -> Path:
        """Return the log file of a process."""
        return self.path / f"{service}.log"

    def write_state(self, state: ServerState) -> None:
        """Replace server.json at once."""
        partial = self.path / f".{STATE_FILE}.partial"
        partial.write_text(json.dumps(asdict(state), indent=1) + "\n", encoding="utf-8")
        partial.rename(self.path / STATE_FILE)

    def read_state(self) -> ServerState | None:
        """Return the state, None before the server has written one."""
        try:
            values: dict[str, Any] = json.loads((self.path / STATE_FILE).read_text("utf-8"))
        except FileNotFoundError:
            return None
        return ServerState(**values)

    def remove_state(self) -> None:
        """Remove server.json: the server is no more."""
        (self.path / STATE_FILE).unlink(missing_ok=True)


def runs_root() -> Path:
    """Return the folder of run folders: $NEMOTRT_RUN_DIR, or this user's runtime folder."""
    override = os.environ.get(ROOT_VARIABLE)
    if override:
        return Path(override)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "nemotrt"
    return Path(tempfile.gettempdir()) / f"nemotrt-{os.getuid()}"


def create_run_folder(path: Path) -> RunFolder:
    """Return the run folder at `path`, made if need be.

    Raises:
        ConfigError: a live server has it, another user owns it, or the path is too long.
    """
    folder = RunFolder(path.absolute())
    if len(os.fsencode(folder.engine_socket)) > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(f"{folder.path} is too long for a socket; set {ROOT_VARIABLE} shorter.")
    for parent in (folder.path.parent, folder.path):
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.path.stat().st_uid != os.getuid():
        raise ConfigError(f"{folder.path} belongs to another user; set {ROOT_VARIABLE}.")
    folder.path.chmod(0o700)
    state = folder.read_state()
    if state is not None and state.is_alive and state.pid != os.getpid():
        raise ConfigError(
            f"a server named {path.name!r} runs already, pid {state.pid}; "
            f"give another --name, or: nemotrt serve stop {path.name}"
        )
    return folder


def list_states() -> Iterator[tuple[RunFolder, ServerState]]:
    """Yield every server that has left a state, dead or alive, by name."""
    for path in sorted(runs_root().glob(f"*/{STATE_FILE}")):
        folder = RunFolder(path.parent)
        state = folder.read_state()
        if state is not None:
            yield folder, state


def is_alive(pid: int) -> bool:
    """Whether a process of this user has that id and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
