"""The paths that Triton is given: ASCII, without spaces, of our own making.

Triton's Python backend starts the model's process by a line of bash into which it pastes the
repository's path and the backend's, unquoted.
Source: triton-inference-server/python_backend r24.10, src/stub_launcher.cc.
"""

import os
import re
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.serve.processes.run_folder import is_alive
from nemotrt.serve.triton.runtime import TritonRuntime

PLAIN = re.compile(r"/[A-Za-z0-9/._-]+", re.ASCII)
BASES = ("/tmp", "/var/tmp", "/dev/shm")  # where the usual temporary folder has no plain path
PREFIX = "nemotrt-triton-"


@dataclass(frozen=True, slots=True)
class TritonWorkspace:
    """A folder of this user's alone, for as long as the server runs."""

    path: Path
    runtime: TritonRuntime

    @property
    def repository(self) -> Path:
        """The model repository that Triton loads."""
        return self.path / "repository"

    @property
    def backends(self) -> Path:
        """The runtime's backends, by a path that bash takes as it is."""
        given = self.runtime.backends.absolute()
        return given if is_plain(given) else self.path / "backends"

    def create(self) -> None:
        """Make the folder, and remove those of servers that are no more.

        Raises:
            OSError: it can't be made.
        """
        for path in self.path.parent.glob(f"{PREFIX}*"):
            owner = path.name.removeprefix(PREFIX).partition("-")[0]
            if owner.isdecimal() and path.stat().st_uid == os.getuid() and not is_alive(int(owner)):
                shutil.rmtree(path, ignore_errors=True)
        self.path.mkdir(mode=0o700)
        if self.backends.parent == self.path:
            self.backends.symlink_to(self.runtime.backends.absolute())

    def remove(self) -> None:
        """Remove what the server needs no more."""
        shutil.rmtree(self.path, ignore_errors=True)


def is_plain(path: Path) -> bool:
    """Whether a path is one word to any shell, the same in any encoding."""
    return PLAIN.fullmatch(str(path)) is not None


def plan_workspace(runtime: TritonRuntime) -> TritonWorkspace:
    """Return where a server's workspace will be; nobody can guess its name.

    Raises:
        EnvironmentUnfitError: no temporary folder can be written by a plain path.
    """
    bases = dict.fromkeys((tempfile.gettempdir(), *BASES))
    for base in map(Path, bases):
        if is_plain(base) and os.access(base, os.W_OK | os.X_OK):
            return TritonWorkspace(base / f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}", runtime)
    raise EnvironmentUnfitError(
        "Triton needs a temporary folder whose path has only ASCII letters, digits, '.', '_' and "
        f"'-', and none of {', '.join(bases)} is one; set TMPDIR, or serve with --no-triton."
    )
