"""The front's own process: `python -m nemotrt.serve.front.process ENGINE ...`."""

import signal
import sys
import threading
from pathlib import Path

import click
import uvicorn

from nemotrt.commandline.kinds import PATH
from nemotrt.commandline.options import options_of
from nemotrt.errors import ConfigError
from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.http.browsers import check_origins, read_hosts
from nemotrt.serve.front.http.connections.bounded_http import BoundedProtocol, backlog
from nemotrt.serve.front.http.tenants import read_tenants
from nemotrt.serve.front.http.tls import check_tls
from nemotrt.serve.front.openai.engine_files import read_engine_files
from nemotrt.serve.front.upstream.upstream import Upstream
from nemotrt.serve.logs.options import LogOptions
from nemotrt.serve.logs.outlet import start_logging
from nemotrt.serve.logs.tracing import start_tracing
from nemotrt.serve.processes.options import FrontOptions, check_adapter_names
from nemotrt.serve.supervision.front_probe import STOP_NOTICE

GRACE_S = 15
KEEP_ALIVE_S = 75  # clients and load balancers (60 s) give a connection up first, so none races us


@click.command()
@click.argument("engine", type=PATH)
@click.option("--triton", "triton_address", help="Triton's gRPC address.")
@click.option("--engine-socket", type=PATH, required=True, help="The engine process's.")
@click.option("--adapter", "adapters", multiple=True, help="That the engine has.")
@options_of(FrontOptions)
@options_of(LogOptions)
def main(
    engine: Path,
    triton_address: str | None,
    engine_socket: Path,
    adapters: tuple[str, ...],
    front_options: FrontOptions,
    log_options: LogOptions,
) -> None:
    """Answer OpenAI's API for ENGINE until SIGTERM."""
    serve_front(
        engine, front_options, log_options, triton_address, engine_socket, adapters=adapters
    )


def serve_front(
    engine: Path,
    told: FrontOptions,
    logs: LogOptions,
    triton_address: str | None,
    engine_socket: Path | None,
    *,
    adapters: tuple[str, ...] = (),
) -> None:
    """Answer OpenAI's API until SIGTERM, before Triton or before the engine's process.

    Raises:
        ArtefactError: `engine` is no engine directory.
        ConfigError: the file of API keys is missing, empty, or open to others, or there is none
            for prefixes to be shared, or TLS can't start, or a host or an origin is none.
        EnvironmentUnfitError: traces are asked for, and their packages are missing.
    """
    start_logging("front", logs)
    check_tls(told.tls_certificate, told.tls_key)
    check_origins(told.cors_origin)
    draining = threading.Event()
    signal.signal(STOP_NOTICE, lambda number, frame: draining.set())
    files = read_engine_files(engine)
    spec = FrontSpec(
        model_name=told.model_name,
        aliases=told.served_model_name or ((files.hub_id,) if files.hub_id else ()),
        files=files,
        upstream=_upstream(triton_address, engine_socket, told.model_name),
        tenants=read_tenants(told),
        engine_socket=engine_socket,
        separate_reasoning=not told.reasoning_in_content,
        max_body_bytes=told.max_body_bytes,
        is_draining=draining.is_set,
        cors_origins=told.cors_origin,
        vllm_metrics=told.vllm_metrics,
        stored_responses_bytes=told.stored_responses_mib << 20,
        hosts=read_hosts(told),
        tracing=start_tracing("front", {"gen_ai.request.model": told.model_name}),
        adapters=adapters,
    )
    check_adapter_names(adapters, spec.model_names)
    uvicorn.run(
        create_app(spec),
        http=BoundedProtocol,
        ws="none",
        backlog=backlog(),
        host=told.host,
        port=told.port,
        ssl_certfile=told.tls_certificate,
        ssl_keyfile=told.tls_key,
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
