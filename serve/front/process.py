"""The front's own process: `python -m nemotrt.serve.front.process ENGINE ...`."""

import logging
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import click
import uvicorn

from nemotrt.errors import ConfigError
from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.http.access import read_api_keys
from nemotrt.serve.front.http.bounded_http import BoundedProtocol
from nemotrt.serve.front.http.tls import check_tls
from nemotrt.serve.front.openai.engine_files import read_engine_files
from nemotrt.serve.front.upstream.upstream import Upstream
from nemotrt.serve.supervision.front_probe import STOP_NOTICE

GRACE_S = 15
KEEP_ALIVE_S = 75  # clients and load balancers (60 s) give a connection up first, so none races us
PATH = click.Path(path_type=Path)


@click.command()
@click.argument("engine", type=PATH)
@click.option("--model-name", required=True)
@click.option("--triton", "triton_address", default=None, help="Triton's gRPC address.")
@click.option("--engine-socket", type=PATH, required=True, help="The engine process's.")
@click.option("--host", default="127.0.0.1")
@click.option("--port", type=int, required=True)
@click.option("--reasoning-in-content", is_flag=True)
@click.option("--api-key-file", type=PATH, default=None)
@click.option("--tls-certificate", type=PATH, default=None)
@click.option("--tls-key", type=PATH, default=None)
@click.option("--max-body-bytes", type=int, default=None)
def main(**options: Any) -> None:
    """Answer OpenAI's API for ENGINE until SIGTERM."""
    serve_front(**options)


def serve_front(
    engine: Path,
    *,
    model_name: str,
    triton_address: str | None,
    engine_socket: Path | None,
    host: str,
    port: int,
    reasoning_in_content: bool,
    api_key_file: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    max_body_bytes: int | None,
) -> None:
    """Answer OpenAI's API until SIGTERM, before Triton or before the engine's process.

    Raises:
        ArtefactError: `engine` is no engine directory.
        ConfigError: the file of API keys is missing, empty, or open to others, or TLS can't start.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    check_tls(tls_certificate, tls_key)
    draining = threading.Event()
    signal.signal(STOP_NOTICE, lambda number, frame: draining.set())
    spec = FrontSpec(
        model_name=model_name,
        files=read_engine_files(engine),
        upstream=_upstream(triton_address, engine_socket, model_name),
        keys=read_api_keys(api_key_file),
        engine_socket=engine_socket,
        separate_reasoning=not reasoning_in_content,
        max_body_bytes=max_body_bytes,
        is_draining=draining.is_set,
    )
    uvicorn.run(
        create_app(spec),
        http=BoundedProtocol,
        host=host,
        port=port,
        ssl_certfile=tls_certificate,
        ssl_keyfile=tls_key,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        log_config=None,
    )


def _upstream(address: str | None, socket: Path | None, model_name: str) -> Upstream:
    """Return Triton's client or the engine process's; imports only what it needs."""
    if address is not None:
        from nemotrt.serve.front.upstream.triton_upstream import TritonUpstream

        return TritonUpstream(address, model_name)
    if socket is None:
        raise ConfigError("a front needs the address of a Triton or an engine's socket.")
    from nemotrt.serve.front.upstream.engine_upstream import EngineUpstream

    return EngineUpstream(socket)


if __name__ == "__main__":
    sys.exit(main())
