"""The folder of one running server: its state, logs and sockets, open to this user alone."""

import json
import os
import shlex
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError
from nemotrt.files.writing import write_file

ROOT_VARIABLE = "NEMOTRT_RUN_DIR"
MAX_SOCKET_PATH_BYTES = 107  # Source: linux/un.h, sun_path
STATE_FILE = "server.json"
UNFIT = (
    f"the run folder {{}} can't be written: {{}}; set {ROOT_VARIABLE}, or give another --run-dir."
)


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
    start_ticks: int  # when `pid` started: a later process of that id is not the server
    processes: dict[str, int] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    schema_version: int = 1

    @property
    def is_alive(self) -> bool:
        """Whether the server's process is there, and no other that has got its id."""
        return start_ticks(self.pid) == self.start_ticks


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one running server."""

    path: Path

    @property
    def engine_socket(self) -> Path:
        """Where the engine process listens."""
        return self.path / "engine.sock"

    def log(self, service: str) -> Path:
        """Return the log file of a process."""
        return self.path / f"{service}.log"

    def write_state(self, state: ServerState) -> None:
        """Replace server.json at once."""
        write_file(self.path / STATE_FILE, json.dumps(asdict(state), indent=1) + "\n")

    def read_state(self) -> ServerState | None:
        """Return the state, None before the server has written one.

        Raises:
            ArtefactError: server.json is damaged, or another version's.
        """
        path = self.path / STATE_FILE
        try:
            return ServerState(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise ArtefactError(
                f"{path} can't be read: {error}; if no server runs there, remove it."
            ) from error

    def remove_state(self) -> None:
        """Remove server.json: the server is no more."""
        (self.path / STATE_FILE).unlink(missing_ok=True)


def runs_root() -> Path:
    """Return the folder of run folders: $NEMOTRT_RUN_DIR, or this user's runtime folder."""
    override = os.environ.get(ROOT_VARIABLE)
    if override:
        return Path(override).absolute()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "nemotrt"
    return Path(tempfile.gettempdir()) / f"nemotrt-{os.getuid()}"


def make_runs_root() -> Path:
    """Return `runs_root()`, made if need be.

    Raises:
        ConfigError: it is a name in a folder that all share, and another user has taken it.
        OSError: it can't be made.
    """
    root = runs_root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if ROOT_VARIABLE not in os.environ and root.parent == Path(tempfile.gettempdir()):
        found = root.lstat()
        if found.st_uid != os.getuid() or root.is_symlink():
            raise ConfigError(f"{root} belongs to another user; set {ROOT_VARIABLE}.")
        root.chmod(0o700)
    return root


def check_run_folder(path: Path) -> RunFolder:
    """Return the run folder at `path`, which need not be there yet; nothing is written.

    Raises:
        ConfigError: a live server has it, another user owns it, or the path is too long.
        EnvironmentUnfitError: it can't be made or written.
    """
    folder = RunFolder(path.absolute())
    if len(os.fsencode(folder.engine_socket)) > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(f"{folder.path} is too long for a socket; set {ROOT_VARIABLE} shorter.")
    there = next(place for place in (folder.path, *folder.path.parents) if os.path.exists(place))
    if there == folder.path and there.stat().st_uid != os.getuid():
        raise ConfigError(f"{folder.path} belongs to another user; set {ROOT_VARIABLE}.")
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise EnvironmentUnfitError(UNFIT.format(folder.path, f"{there} is no place for it"))
    state = folder.read_state() if there == folder.path else None
    if state is not None and state.is_alive and state.pid != os.getpid():
        raise ConfigError(
            f"a server named {state.name!r} runs already in {folder.path}, pid {state.pid}; give "
            f"this one a --run-dir of its own, or: nemotrt serve stop {shlex.quote(state.name)}"
        )
    return folder


def create_run_folder(path: Path) -> RunFolder:
    """Return the checked run folder at `path`, made if need be; raises like `check_run_folder`."""
    folder = check_run_folder(path)
    try:
        if folder.path.parent == runs_root():
            make_runs_root()
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.path.chmod(0o700)
        with tempfile.TemporaryFile(dir=folder.path):
            pass  # it can be written
    except OSError as error:
        raise EnvironmentUnfitError(UNFIT.format(folder.path, error.strerror)) from error
    return folder


def is_alive(pid: int) -> bool:
    """Whether a process has that id and is no zombie."""
    return start_ticks(pid) is not None


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None for a zombie or no process.

    Source: proc_pid_stat(5), fields 3 and 22.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])
