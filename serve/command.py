"""`nemotrt serve ENGINE`, and `nemotrt serve repo|install|status|stop`."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from nemotrt.commandline.default_group import DefaultGroup
from nemotrt.commandline.kinds import PATH, PORT, FloatRange
from nemotrt.commandline.options import options_of, told_fields
from nemotrt.commandline.shared import (
    config_option,
    dry_run_option,
    force_option,
    given_options,
    json_option,
    quiet_option,
)
from nemotrt.engines.artefact.named import ENGINE, engine_folder, rebuild_option
from nemotrt.engines.checkpoint.hub.parameter import offline_option
from nemotrt.errors import ChildProcessFailedError, ConfigError
from nemotrt.serve.deploy.command import compose, k8s
from nemotrt.serve.front.command import front
from nemotrt.serve.logs.options import LogFormat, verbose_option, with_verbose
from nemotrt.serve.processes.options import TritonOptions
from nemotrt.serve.supervision.serve_spec import ServeSpec
from nemotrt.serve.triton.repository_command import repo


@click.group(cls=DefaultGroup, subcommand_metavar="ENGINE [OPTIONS] | COMMAND ...")
def serve() -> None:
    """Serve ENGINE with Triton Inference Server, on loopback, until Ctrl-C.

    `nemotrt serve ENGINE` is short for `nemotrt serve run ENGINE`, whose --help has the options.
    """


@serve.command()
@click.argument("engine", type=ENGINE)
@rebuild_option
@options_of(ServeSpec)
@click.option("--free-ports", is_flag=True, help="Take free ports where no port is given.")
@click.option("--engine-module", hidden=True)
@click.option("--run-dir", type=PATH, help="Folder of state and logs.")
@click.option("--stop-with-parent", is_flag=True, help="End with the process that started it.")
@click.option("--logs", "with_logs", is_flag=True, help="Show the processes' logs on stderr too.")
@verbose_option
@dry_run_option
@quiet_option
@offline_option
@config_option
def run(
    serve_spec: ServeSpec,
    rebuild: bool,
    free_ports: bool,
    run_dir: Path | None,
    stop_with_parent: bool,
    with_logs: bool,
    verbose: int,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Serve ENGINE until SIGTERM or Ctrl-C.

    ENGINE is an engine directory, or a checkpoint (a folder, OWNER/NAME[@REVISION] on the hub, or
    tiny), whose engine for the CPU is built into the cache, once.
    """
    import logging

    from nemotrt.serve.processes.packages import check_packages

    check_packages(use_triton=serve_spec.use_triton)
    from nemotrt.serve.processes.host import check_host

    check_host()
    if serve_spec.use_triton:
        from nemotrt.serve.triton.runtime import find_runtime
        from nemotrt.serve.triton.server import check_places

        find_runtime(serve_spec.triton.runtime)  # before minutes of building
        check_places()
    from nemotrt.serve.logs.outlet import start_logging
    from nemotrt.serve.logs.tracing import check_tracing
    from nemotrt.serve.processes.run_folder import check_run_folder, create_run_folder, runs_root
    from nemotrt.serve.supervision.supervisor import Supervisor

    check_tracing()
    logs = with_verbose(serve_spec.logs, verbose)
    log, handler = logging.getLogger("nemotrt.serve"), logging.StreamHandler()
    handler.setLevel(logging.ERROR if quiet else logging.NOTSET)
    start_logging("serve", logs, handler)
    engine = engine_folder(str(serve_spec.engine), rebuild=rebuild)
    spec = _checked(replace(serve_spec, engine=engine, logs=logs), free_ports)
    place = run_dir or runs_root() / (Path(os.path.abspath(spec.engine)).name or "engine")
    folder = (check_run_folder if dry_run else create_run_folder)(place)
    supervisor = Supervisor(spec, folder, stop_with_parent=stop_with_parent)
    if dry_run:
        state = supervisor.state
        click.echo(f"would serve {spec.engine} as {state.model_name!r}: {_urls(state)}", err=True)
        return
    is_json = logs.log_format is LogFormat.JSON

    def tell(state: Any) -> None:
        if is_json:  # standard error is objects alone then
            log.info("ready", extra={"fields": _addresses(state)})
        elif not quiet:
            click.echo(_urls(state), err=True)

    supervisor.run(
        on_ready=tell,
        on_log=(lambda line: click.echo(line, err=True)) if with_logs else None,
    )


@serve.command()
@click.option(
    "--runtime", type=PATH, help="Folder of the runtime; default one of this environment."
)
@force_option
@dry_run_option
def install(runtime: Path | None, force: bool, dry_run: bool) -> None:
    """Install the Triton runtime (server and its numpy) apart from this environment."""
    from nemotrt.serve.triton.install import find_or_plan, install_runtime
    from nemotrt.serve.triton.runtime import check_libraries

    if dry_run:
        click.echo(find_or_plan(runtime, force=force), err=True)
        return
    installed = install_runtime(runtime, force=force)
    click.echo(str(installed.folder))
    check_libraries(installed)


@serve.command()
@json_option
def status(as_json: bool) -> None:
    """List this user's servers, wherever their run folders are."""
    from nemotrt.serve.supervision.server_list import list_states

    states = list(list_states())
    if as_json:
        servers = [{**asdict(s), "is_alive": s.is_alive} for s in states]
        click.echo(json.dumps({"schema_version": 1, "servers": servers}))
        return
    for state in states:
        word = state.status if state.is_alive else "dead"
        click.echo(f"{state.name}: {word}, pid {state.pid}, {_urls(state)}, {state.run_folder}")
    if not states:
        click.echo("No server runs.", err=True)


@serve.command()
@click.argument("name", required=False)
@click.option("--run-dir", type=PATH, help="Run folder of the server, where two have one name.")
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
@click.option("--run-dir", type=PATH, help="Run folder of the server, where two have one name.")
@click.option(
    "--timeout-s",
    type=FloatRange(0),
    default=90.0,
    show_default=True,
    help="Longest wait for its end.",
)
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


def _checked(spec: ServeSpec, free_ports: bool) -> ServeSpec:
    """Return the spec with the ports that it is to have, if its options go together.

    Raises:
        ConfigError: an option is of what is not there.
    """
    from nemotrt.engines.artefact.manifest import MANIFEST_FILE, read_manifest
    from nemotrt.engines.opening import check_adapters, check_python, check_runs_here, check_threads
    from nemotrt.serve.processes.options import check_adapter_names

    given = {option.name for option in given_options(click.get_current_context()).values()}
    foreign = [told.names[0] for item, told in told_fields(TritonOptions) if item.name in given]
    if foreign and not spec.use_triton:
        raise ConfigError(f"{', '.join(foreign)}: of Triton, which --no-triton leaves out.")
    spec.process.prefix_cache.check_size()
    if (spec.engine / MANIFEST_FILE).is_file():
        manifest = read_manifest(spec.engine)
        check_runs_here(spec.engine, manifest)
        check_threads(manifest, spec.process.opening.num_threads)
        check_python(manifest, spec.process.opening.tensorrt_llm_python)
        check_adapters(manifest, spec.process.opening.lora)
    names = (spec.front.model_name, *spec.front.served_model_name)
    check_adapter_names([adapter.name for adapter in spec.process.opening.lora], names)

    def with_free_ports(options: Any) -> Any:
        ports = {item.name for item, told in told_fields(type(options)) if told.kind is PORT}
        return replace(options, **dict.fromkeys(ports - given, 0))

    if not free_ports:
        return spec
    return replace(spec, front=with_free_ports(spec.front), triton=with_free_ports(spec.triton))


def _addresses(state: Any) -> dict[str, str]:
    """Return a server's addresses by what is there."""
    urls = {"OpenAI": state.openai_url, "Triton": state.http_url, "gRPC": state.grpc_url}
    urls["metrics"] = state.metrics_url
    return {name: url for name, url in urls.items() if url}


def _urls(state: Any) -> str:
    """Return a server's addresses in one line."""
    return ", ".join(f"{name} {url}" for name, url in _addresses(state).items())
