"""`nemotrt profile engine`: parse, call, print."""

import dataclasses
import json

import click

from nemotrt.commandline.kinds import COUNT
from nemotrt.commandline.options import options_of
from nemotrt.commandline.shared import config_option, json_option
from nemotrt.engines.artefact.named import ENGINE, engine_folder, rebuild_option
from nemotrt.engines.artefact.options import OpenOptions, weight_options
from nemotrt.engines.checkpoint.hub.parameter import offline_option
from nemotrt.profiles.engine_step.load import Load


@click.command()
@click.argument("engine", type=ENGINE)
@options_of(Load)
@click.option("--steps", type=COUNT, default=20, show_default=True)
@click.option("--threads", type=COUNT, help="CPU threads.  [default: all]")
@weight_options
@rebuild_option
@json_option
@offline_option
@config_option
def engine(
    engine: str,
    load: Load,
    steps: int,
    threads: int | None,
    open_options: OpenOptions,
    rebuild: bool,
    as_json: bool,
) -> None:
    """Show where a step of a native ENGINE spends its time, against this machine's roofline.

    The roofline of an operator is the larger of its bytes over the bandwidth and its operations
    over the arithmetic rate; both limits are measured in the same run. With --tokens above 1 the
    steps are prompt chunks. Of a checkpoint an engine is built into the cache, once.
    """
    from nemotrt.engines.opening import checked_manifest
    from nemotrt.profiles.engine_step.measurement import profile_step

    folder = engine_folder(engine, rebuild=rebuild)
    manifest = checked_manifest(folder, dataclasses.replace(open_options, num_threads=threads))
    found = profile_step(folder, manifest, load, steps, threads)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), allow_nan=False))
        return
    from rich.console import Console

    from nemotrt.profiles.engine_step.table import profile_table

    Console(width=120).print(profile_table(found))
