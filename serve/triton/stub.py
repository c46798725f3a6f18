"""The process in which Triton runs the model, which Triton itself does not notice when it dies."""

from pathlib import Path

from nemotrt.serve.processes.run_folder import is_alive

NAME = "triton_python_b"  # of triton_python_backend_stub, as the kernel cuts it


class TritonStub:
    """Found once for each server, then looked at; a look is one file read."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._server = 0
        self._stub: int | None = None

    def is_alive(self, server: int) -> bool:
        """Whether the stub of the ready tritonserver `server` lives."""
        if server != self._server:
            self._server, self._stub = server, find_stub(server)
        return self._stub is not None and is_alive(self._stub)


def find_stub(group: int) -> int | None:
    """Return the stub's process id; it is in its server's process group."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, tail = path.read_text("utf-8").rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if head.endswith(f"({NAME}") and int(tail.split()[2]) == group:
            return int(path.parent.name)
    return None
