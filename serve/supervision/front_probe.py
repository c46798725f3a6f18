"""Asks the front whether it lives, and how it is told that the server stops."""

import http.client
import signal
import ssl
from dataclasses import dataclass

PROBE_TIMEOUT_S = 5.0
STOP_NOTICE = signal.SIGUSR1
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class FrontProbe:
    """Where the front listens."""

    host: str
    port: int
    is_tls: bool

    def is_live(self) -> bool:
        """Whether it answers."""
        connection = self._connection()
        try:
            connection.request("GET", "/health/live")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        """Return a connection; the certificate is our own file and need not be checked."""
        host = ANY_ADDRESS.get(self.host, self.host)
        if not self.is_tls:
            return http.client.HTTPConnection(host, self.port, timeout=PROBE_TIMEOUT_S)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(
            host, self.port, timeout=PROBE_TIMEOUT_S, context=context
        )
