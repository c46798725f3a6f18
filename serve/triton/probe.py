"""Asks Triton how it is, over one connection that comes back by itself."""

import http.client
import json
import socket

from nemotrt.serve.triton.address import UNIX, TritonAddress, TritonProtocol

PROBE_TIMEOUT_S = 5.0


class UnixHTTPConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        """Prepare a connection to the socket at `path`."""
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class TritonProbe:
    """Knows Triton's own word from what really is; one caller at a time."""

    def __init__(self, address: TritonAddress, model_name: str) -> None:
        """Prepare; nothing is asked yet."""
        self._address = address
        self._model = f"/v2/models/{model_name}"
        self._connection = self._new_connection()

    def is_ready(self) -> bool:
        """Whether Triton says that the model is ready; it also says so of one with a dead stub."""
        return self._is_success("GET", f"{self._model}/ready")

    def is_well(self) -> bool:
        """Whether the model's own process answers: a `stop` for no request goes to it and back."""
        return self._is_success("POST", f"{self._model}/generate", {"stop": True})

    def close(self) -> None:
        """Give the connection up; the next question makes another."""
        self._connection.close()

    def _is_success(self, method: str, path: str, body: dict[str, bool] | None = None) -> bool:
        """Whether one exchange succeeds; Triton logs every connection to a Unix socket."""
        connection = self._connection
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            response.read()
            return response.status == 200
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request connects anew
            return False

    def _new_connection(self) -> http.client.HTTPConnection:
        host = self._address.host(TritonProtocol.HTTP)
        if host.startswith(UNIX):
            return UnixHTTPConnection(host.removeprefix(UNIX), PROBE_TIMEOUT_S)
        port = self._address.port(TritonProtocol.HTTP)
        return http.client.HTTPConnection(host, port, timeout=PROBE_TIMEOUT_S)
