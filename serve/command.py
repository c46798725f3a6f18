"""`nemotrt serve ENGINE`, and `nemotrt serve repo|install|status|stop`."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import click

from nemotrt.commandline import (
    COUNT,
    PATH,
    PORT,
    DefaultGroup,
    config_option,
    dry_run_option,
    engine_options,
    force_option,
    json_option,
    quiet_option,
)
from nemotrt.errors import ChildProcessFailedError, ConfigError
from nemotrt.serve.deploy.command import compose, k8s
from nemotrt.serve.front.command import front
from nemotrt.serve.requests.limits import BODY_DEFAULT
from nemotrt.serve.triton.repository_command import repo

TRITON_PORTS = ("http_port", "grpc_port", "metrics_port")
OF_TRITON = (*TRITON_PORTS, "runtime")


@click.group(cls=DefaultGroup, subcommand_metavar="ENGINE [OPTIONS] | COMMAND ...")
def serve() -> None:
    """Serve ENGINE with Triton Inference Server, on loopback, until Ctrl-C.

    `nemotrt serve ENGINE` is short for `nemotrt serve run ENGINE`, whose --help has the options.
    """


@serve.command()
@click.argument("engine", type=PATH)
@click.option("--name", "model_name", default="llm", show_default=True, help="The model's name.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Of the OpenAI endpoint.")
@click.option("--port", type=PORT, help="OpenAI endpoint.  [default: 9000]")
@click.option("--http-port", type=PORT, help="Triton's HTTP.  [default: 8000]")
@click.option("--grpc-port", type=PORT, help="Triton's gRPC.  [default: 8001]")
@click.option("--metrics-port", type=PORT, help="Triton's metrics.  [default: 8002]")
@click.option("--free-ports", is_flag=True, help="Free ports for those that are not given.")
@click.option("--no-triton", is_flag=True, help="Only the OpenAI endpoint, before the engine.")
@click.option("--reasoning-in-content", is_flag=True, help="Leave <think> traces in the content.")
@click.option("--api-key-file", type=PATH, help="API keys, one a line; or $NEMOTRT_API_KEYS.")
@click.option("--tls-certificate", type=PATH)
@click.option("--tls-key", type=PATH)
@click.option("--max-body-bytes", type=COUNT, help=f"Of a request.  {BODY_DEFAULT}")
@click.option("--max-queue-size", type=COUNT, help="Waiting requests.  [default: 512]")
@click.option("--max-queue-s", type=float, help="Longest wait for a slot.  [default: 300]")
@click.option("--max-chunks-per-s", type=float, help="Of all streams.  [default: 2000]")
@click.option(
    "--target-itl-ms",
    type=float,
    help="Between tokens while prompts come in: their chunks shrink to keep it.",
)
@click.option("--drain-s", type=float, default=30.0, show_default=True, help="At a stop.")
@click.option("--threads", type=COUNT, help="CPU threads of the engine.")
@engine_options
@click.option("--runtime", type=PATH, help="Triton runtime folder.")
@click.option("--engine-module", hidden=True)
@click.option("--run-dir", type=PATH, help="Folder of state and logs.")
@click.option("--stop-with-parent", is_flag=True, help="End with the process that started it.")
@click.option("--logs", "with_logs", is_flag=True, help="The processes' logs on stderr too.")
@dry_run_option
@quiet_option
@config_option
def run(
    engine: Path,
    run_dir: Path | None,
    stop_with_parent: bool,
    with_logs: bool,
    dry_run: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Serve ENGINE until SIGTERM or Ctrl-C."""
    import logging

    from nemotrt.serve.processes.packages import check_packages

    check_packages(use_triton=not options["no_triton"])
    from nemotrt.serve.processes.run_folder import create_run_folder, runs_root
    from nemotrt.serve.supervision.supervisor import Supervisor

    level = logging.ERROR if quiet else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    spec = _spec(engine, **options)
    folder = create_run_folder(
        run_dir or runs_root() / (Path(os.path.abspath(engine)).name or "engine")
    )
    supervisor = Supervisor(spec, folder, stop_with_parent=stop_with_parent)
    if dry_run:
        click.echo(
            f"would serve {engine} as {spec.model_name!r}: {_urls(supervisor.state)}", err=True
        )
        return
    supervisor.run(
        on_ready=lambda state: None if quiet else click.echo(_urls(state), err=True),
        on_log=(lambda line: click.echo(line, err=True)) if with_logs else None,
    )


@serve.command()
@click.option("--runtime", type=PATH, help="Where to; default a folder of this environment.")
@force_option
def install(runtime: Path | None, force: bool) -> None:
    """Install the Triton runtime (server and its numpy) apart from this environment."""
    from nemotrt.serve.triton.install import install_runtime

    installed = install_runtime(runtime, force=force)
    click.echo(str(installed.folder))


@serve.command()
@json_option
def status(as_json: bool) -> None:
    """List this user's servers, wherever their run folders are."""
    from nemotrt.serve.supervision.server_list import list_states

    states = list(list_states())
    if as_json:
        servers = [{**dataclasses.asdict(s), "is_alive": s.is_alive} for s in states]
        click.echo(json.dumps({"schema_version": 1, "servers": servers}))
        return
    for state in states:
        word = state.status if state.is_alive else "dead"
        click.echo(f"{state.name}: {word}, pid {state.pid}, {_urls(state)}, {state.run_folder}")
    if not states:
        click.echo("No server runs.", err=True)


@serve.command()
@click.argument("name", required=False)
@click.option("--run-dir", type=PATH, help="The server's, where two have one name.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the server stops, or Ctrl-C.")
def logs(name: str | None, run_dir: Path | None, follow: bool) -> None:
    """Print the logs of server NAME; NAME may be left out when there is only one."""
    import time

    from nemotrt.serve.supervision.log_follower import LogFollower
    from nemotrt.serve.supervision.server_list import choose_server

    state = choose_server(name, run_dir, is_alive=False)
    follower = LogFollower(sorted(Path(state.run_folder).glob("*.log")))
    is_alive = True
    while is_alive:
        is_alive = follow and state.is_alive
        for line in follower.lines():
            click.echo(line)
        time.sleep(0.1 if is_alive else 0)


@serve.command()
@click.argument("name", required=False)
@click.option("--run-dir", type=PATH, help="The server's, where two have one name.")
@click.option("--timeout-s", type=float, default=90.0, show_default=True)
def stop(name: str | None, run_dir: Path | None, timeout_s: float) -> None:
    """Stop the server NAME gracefully; NAME may be left out when there is only one."""
    from nemotrt.serve.processes.launcher import wait_stopped
    from nemotrt.serve.supervision.server_list import choose_server

    state = choose_server(name, run_dir, is_alive=True)
    if not wait_stopped(state, timeout_s):
        raise ChildProcessFailedError(f"server {state.name}, pid {state.pid}, is still stopping.")
    click.echo(f"{state.name} stopped")


for command in (repo, front, k8s, compose):
    serve.add_command(command)


def _spec(
    engine: Path,
    *,
    free_ports: bool,
    no_triton: bool,
    max_queue_size: int | None,
    max_queue_s: float | None,
    **options: Any,
) -> Any:
    """Return the checked ServeSpec of the command line; what is not given keeps its default."""
    from nemotrt.engines.artefact.manifest import MANIFEST_FILE, read_manifest
    from nemotrt.engines.opening import check_threads
    from nemotrt.serve.engine.admission import QueueLimits
    from nemotrt.serve.supervision.serve_spec import ServeSpec

    if no_triton and (foreign := [name for name in OF_TRITON if options[name] is not None]):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in foreign)
        raise ConfigError(f"{flags}: of Triton, which --no-triton leaves out.")
    if options["threads"] is not None and (engine / MANIFEST_FILE).is_file():
        check_threads(read_manifest(engine), options["threads"])
    if no_triton:
        options |= dict.fromkeys(TRITON_PORTS, 0)  # none of them is taken
    if free_ports:
        for name in ("port", *TRITON_PORTS):
            options[name] = options[name] or 0
    queue = QueueLimits(
        max_queue_size or QueueLimits().max_queue_size,
        QueueLimits().max_queue_s if max_queue_s is None else max_queue_s,
    )
    chosen = {name: value for name, value in options.items() if value is not None}
    return ServeSpec(engine, queue=queue, use_triton=not no_triton, **chosen)


def _urls(state: Any) -> str:
    """Return a server's addresses in one line."""
    urls = {"OpenAI": state.openai_url, "Triton": state.http_url, "gRPC": state.grpc_url}
    urls["metrics"] = state.metrics_url
    return ", ".join(f"{name} {url}" for name, url in urls.items() if url)
