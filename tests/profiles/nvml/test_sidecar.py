"""A remote server's hardware, from the exporter beside it: the real exporter, over HTTP."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.profiles.hardware.exporter.gpu_gauges import GpuGauges
from nemotrt.profiles.hardware.exporter.sidecar import hardware_of


@pytest.fixture
def page() -> Iterator[tuple[str, dict[str, str]]]:
    """An address, and what it answers."""
    said = {"text": ""}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said["text"].encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics", said
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_exporter_tells_its_gpus(nvml_script, page) -> None:
    url, said = page
    nvml_script(gpus="2", gpu0_name="NVIDIA A10G", gpu1_name="NVIDIA A10G")
    said["text"] = GpuGauges().text()
    assert hardware_of(url) == "NVIDIA A10G + NVIDIA A10G"


def test_what_is_no_exporter_is_refused(page) -> None:
    url, said = page
    for text in ("", "up 1\n", "<html>", "nemotrt_gpu_power_w 3\n"):
        said["text"] = text
        with pytest.raises(EnvironmentUnfitError, match=r"tells no GPU|does not answer"):
            hardware_of(url)
    with pytest.raises(EnvironmentUnfitError, match="does not answer"):
        hardware_of("http://127.0.0.1:1/metrics")
    for address in ("file:///etc/passwd", "9400", "ftp://a/b"):
        with pytest.raises(ConfigError, match="must be an exporter's address"):
            hardware_of(address)


@pytest.mark.parametrize("args", [("tiny",), ("http://127.0.0.1:1/v1", "--fact", "hardware=x")])
def test_it_is_for_a_server_that_does_not_say(args: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, ["profile", *args, "--hardware-from", "http://a/metrics"])
    assert result.exit_code == 2
    assert "--hardware-from is for a server" in result.stderr
