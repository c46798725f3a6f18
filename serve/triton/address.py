"""Where Triton listens: on loopback ports, or on Unix sockets in a folder of this user's alone."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

LOOPBACK = "127.0.0.1"
UNIX = "unix:"
SOCKET_PORT = 1  # Triton wants a number; a Unix socket has none


class TritonProtocol(StrEnum):
    """What Triton serves, each at an address of its own."""

    HTTP = "http"
    GRPC = "grpc"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class TritonAddress:
    """Addresses by protocol.

    Args:
        ports: HTTP, gRPC and metrics, on loopback: this version must not be exposed.
        sockets: a folder; then Triton has no ports, since it knows no API keys.
    """

    ports: tuple[int, int, int] = (SOCKET_PORT, SOCKET_PORT, SOCKET_PORT)
    sockets: Path | None = None

    def host(self, protocol: TritonProtocol) -> str:
        """Return what Triton is told to bind."""
        return LOOPBACK if self.sockets is None else f"{UNIX}{self.sockets / protocol}"

    def port(self, protocol: TritonProtocol) -> int:
        """Return the port that Triton is told to bind."""
        return self.ports[list(TritonProtocol).index(protocol)]

    def target(self, protocol: TritonProtocol) -> str:
        """Return what a client connects to; gRPC puts the number into a Unix socket's name too."""
        return f"{self.host(protocol)}:{self.port(protocol)}"

    def url(self, protocol: TritonProtocol, path: str = "") -> str | None:
        """Return the address for HTTP clients; None for Unix sockets, which have none."""
        return None if self.sockets is not None else f"http://{self.target(protocol)}{path}"

    def remove_sockets(self) -> None:
        """Remove the sockets that a server has left: Triton can't bind to them again."""
        if self.sockets is not None:
            for protocol in TritonProtocol:
                for path in self.sockets.glob(f"{protocol}*"):
                    if path.is_socket():
                        path.unlink()
