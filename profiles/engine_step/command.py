"""`nemotrt profile engine`: parse, call, print."""

import dataclasses
import json
from pathlib import Path

import click

from nemotrt.commandline import COUNT, PATH, json_option, options_of
from nemotrt.engines.artefact.options import OpenOptions, weight_options
from nemotrt.engines.checkpoint.hub.parameter import offline_option
from nemotrt.profiles.engine_step.load import Load


@click.command()
@click.argument("engine", type=PATH)
@options_of(Load)
@click.option("--steps", type=COUNT, default=20, show_default=True)
@click.option("--threads", type=COUNT, help="CPU threads.  [default: all]")
@weight_options
@json_option
@offline_option
def engine(
    engine: Path,
    load: Load,
    steps: int,
    threads: int | None,
    open_options: OpenOptions,
    as_json: bool,
) -> None:
    """Show where a step of a native ENGINE spends its time, against this machine's roofline.

    The roofline of an operator is the larger of its bytes over the bandwidth and its operations
    over the arithmetic rate; both limits are measured in the same run. With --tokens above 1 the
    steps are prompt chunks.
    """
    from nemotrt.engines.opening import checked_manifest
    from nemotrt.profiles.engine_step.measurement import profile_step

    manifest = checked_manifest(engine, dataclasses.replace(open_options, num_threads=threads))
    found = profile_step(engine, manifest, load, steps, threads)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), allow_nan=False))
        return
    from rich.console import Console

    from nemotrt.profiles.engine_step.table import profile_table

    Console(width=120).print(profile_table(found))
