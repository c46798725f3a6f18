"""Free ports on loopback."""

import socket
from contextlib import ExitStack

from nemotrt.errors import EnvironmentUnfitError


def choose_ports(host: str, wanted: list[int]) -> list[int]:
    """Return the ports to use: each as wanted, with a free one for every 0.

    Raises:
        EnvironmentUnfitError: a wanted port is in use, or the host is not of this machine.
    """
    with ExitStack() as stack:
        return [stack.enter_context(_bound(host, port)).getsockname()[1] for port in wanted]


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that holds a port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    holder = socket.socket(family, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((host, port))
    except (OSError, UnicodeError) as error:  # UnicodeError: no host can have that name
        holder.close()
        why = getattr(error, "strerror", None) or error
        raise EnvironmentUnfitError(
            f"cannot use {host}:{port}: {why}; give another port, or 0 for a free one."
        ) from error
    return holder
