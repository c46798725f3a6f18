"""`nemotrt profile engine`: parse, call, print."""

import dataclasses
import json

import click

from nemotrt.commandline import json_option
from nemotrt.engines.artefact.named import ENGINE, engine_folder, rebuild_option
from nemotrt.engines.artefact.options import engine_options
from nemotrt.engines.checkpoint.hub.parameter import offline_option


@click.command()
@click.argument("engine", type=ENGINE)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Sequences.")
@click.option(
    "--held", type=click.IntRange(0), default=128, show_default=True, help="Their tokens."
)
@click.option(
    "--tokens", type=click.IntRange(1), default=1, show_default=True, help="New ones each."
)
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all]")
@engine_options
@rebuild_option
@json_option
@offline_option
def engine(
    engine: str,
    batch: int,
    held: int,
    tokens: int,
    steps: int,
    threads: int | None,
    checkpoint: str | None,
    verify: bool,
    rebuild: bool,
    as_json: bool,
) -> None:
    """Show where a step of a native ENGINE spends its time, against this machine's roofline.

    The roofline of an operator is the larger of its bytes over the bandwidth and its operations
    over the arithmetic rate; both limits are measured in the same run. With --tokens above 1 the
    steps are prompt chunks. Of a checkpoint an engine is built into the cache, once.
    """
    from nemotrt.engines.artefact.weights import OpenOptions
    from nemotrt.engines.opening import checked_manifest
    from nemotrt.profiles.engine_step.measurement import profile_step
    from nemotrt.profiles.engine_step.work import Load

    folder = engine_folder(engine, rebuild=rebuild)
    manifest = checked_manifest(folder, OpenOptions(threads, checkpoint, not verify))
    found = profile_step(folder, manifest, Load(batch, held, tokens), steps, threads)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), allow_nan=False))
        return
    from rich.console import Console

    from nemotrt.profiles.engine_step.table import profile_table

    Console(width=120).print(profile_table(found))
