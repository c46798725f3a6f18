"""`nemotrt serve front`: parse, check, run."""

from dataclasses import replace
from pathlib import Path

import click

from nemotrt.commandline.kinds import PATH
from nemotrt.commandline.options import options_of
from nemotrt.commandline.shared import config_option, dry_run_option
from nemotrt.serve.logs.options import LogOptions, verbose_option, with_verbose
from nemotrt.serve.processes.options import FrontOptions


@click.command()
@click.argument("engine", type=PATH)
@click.option(
    "--triton",
    "triton_address",
    default="127.0.0.1:8001",
    show_default=True,
    help="gRPC address of the Triton that serves ENGINE's repository.",
)
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="NAME",
    help="An adapter that the engine behind Triton has; may be repeated.",
)
@options_of(FrontOptions)
@options_of(LogOptions)
@verbose_option
@dry_run_option
@config_option
def front(
    engine: Path,
    triton_address: str,
    adapters: tuple[str, ...],
    front_options: FrontOptions,
    log_options: LogOptions,
    verbose: int,
    dry_run: bool,
) -> None:
    """Answer OpenAI's API before a Triton that runs already.

    ENGINE is read for its tokenizer and chat template alone. Triton must serve what `nemotrt serve
    repo ENGINE --target container` wrote. `nemotrt serve ENGINE` starts a front by itself.
    """
    from nemotrt.serve.processes.packages import check_packages

    check_packages(use_triton=True)
    from nemotrt.engines.artefact.manifest import read_manifest
    from nemotrt.serve.front.process import serve_front
    from nemotrt.serve.supervision.ports import choose_ports

    (port,) = choose_ports(front_options.host, [front_options.port])
    told, logs = replace(front_options, port=port), with_verbose(log_options, verbose)
    if dry_run:
        read_manifest(engine)
        click.echo(f"would answer for {engine} on port {port}, before {triton_address}", err=True)
        return
    serve_front(engine, told, logs, triton_address, engine_socket=None, adapters=adapters)
