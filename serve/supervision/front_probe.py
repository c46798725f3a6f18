"""Asks the front whether it lives, and how it is told that the server stops."""

import http.client
import signal
import ssl

PROBE_TIMEOUT_S = 5.0
STOP_NOTICE = signal.SIGUSR1
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def is_front_live(host: str, port: int, *, is_tls: bool) -> bool:
    """Whether the front answers; its certificate is our own file and need not be checked."""
    where = (ANY_ADDRESS.get(host, host), port)
    if is_tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            *where, timeout=PROBE_TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(*where, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
