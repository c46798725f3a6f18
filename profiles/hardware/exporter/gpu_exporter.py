"""Serves the GPUs' figures to Prometheus, beside whatever uses them."""

import signal
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.profiles.hardware.exporter.gpu_gauges import GpuGauges

PATH = "/metrics"
HOST = "127.0.0.1"  # figures of a machine are nobody's business unless it is said
MAX_PORT = 65535
SILENCE_S = 5.0  # of a client, before it is hung up on


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of "9400", "0.0.0.0:9400" or "[::1]:9400"; raises ConfigError."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > MAX_PORT:
        raise ConfigError(f"--serve {text!r} must be PORT or HOST:PORT, such as 9400.")
    return host.strip("[]") or HOST, int(port)


def export(
    names: tuple[str, ...],
    address: tuple[str, int],
    duration_s: float | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Answer GET /metrics until `duration_s` is over, Ctrl-C, SIGTERM, or the last GPU is lost.

    Args:
        names: of the GPUs; none means all.
        address: host and port; port 0 takes a free one.
        duration_s: None waits for a signal.
        on_ready: gets the URL.

    Raises:
        EnvironmentUnfitError: there is no GPU, all are lost, or the port is taken.
        ConfigError: a GPU's name means nothing here.
    """
    gauges = GpuGauges(names)
    if not gauges.has_gpu:
        raise EnvironmentUnfitError(gauges.absence)
    try:
        server = ThreadingHTTPServer(address, _handler(gauges))
    except OSError as error:
        raise EnvironmentUnfitError(
            f"--serve can't listen at {address[0]}:{address[1]}: {error}."
        ) from error
    server.daemon_threads = False  # closing waits for the answers that are under way
    thread = threading.Thread(target=server.serve_forever, name="gpu-exporter", daemon=True)
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        thread.start()
        on_ready(f"http://{address[0]}:{server.server_address[1]}{PATH}")
        end_s = None if duration_s is None else time.perf_counter() + duration_s
        while gauges.has_gpu and (end_s is None or time.perf_counter() < end_s):
            time.sleep(0.2 if end_s is None else max(min(0.2, end_s - time.perf_counter()), 0.0))
    except KeyboardInterrupt:
        pass  # the usual way to end it
    finally:
        signal.signal(signal.SIGTERM, before)
        server.shutdown()
        server.server_close()
    if not gauges.has_gpu:
        raise EnvironmentUnfitError("no GPU answers any more; `nvidia-smi` says more.")


def _handler(gauges: GpuGauges) -> type[BaseHTTPRequestHandler]:
    """Return what answers a request."""

    class Handler(BaseHTTPRequestHandler):
        """GET /metrics and nothing else; says nothing of a request."""

        timeout = SILENCE_S

        def do_GET(self) -> None:
            """Answer with the figures of now."""
            if self.path.partition("?")[0] != PATH:
                self.send_error(HTTPStatus.NOT_FOUND, f"the figures are at {PATH}")
                return
            body = gauges.text().encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Leave the terminal alone: one line a scrape is none for a person."""

    return Handler
