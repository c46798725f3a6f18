"""`nemotrt pack`: parse, call, print."""

import dataclasses
import json
from pathlib import Path

import click

from nemotrt.commandline.kinds import PATH
from nemotrt.commandline.shared import (
    config_option,
    dry_run_option,
    force_option,
    json_option,
    output_option,
    quiet_option,
)
from nemotrt.engines.artefact.options import OpenOptions, weight_options
from nemotrt.engines.checkpoint.hub.parameter import offline_option


@click.command()
@click.argument("engine", type=PATH)
@output_option("New folder.", required=True, metavar="DIR")
@weight_options
@force_option
@dry_run_option
@quiet_option
@json_option
@offline_option
@config_option
def pack(
    engine: Path,
    output: Path,
    open_options: OpenOptions,
    force: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make one folder of ENGINE and its weights, which opens wherever it is taken.

    DIR is an engine directory of its own; ENGINE and its checkpoint stay as they are. On one file
    system large files are shared, not copied.
    """
    from nemotrt.build.packing import check_pack, pack_engine

    if dry_run:
        place = check_pack(engine, output, open_options, force=force)
        weights = "which holds its weights" if place is None else f"and the weights in {place}"
        click.echo(f"would pack {engine}, {weights}, into {output}", err=True)
        return
    packed = pack_engine(engine, output, open_options, force=force, quiet=quiet)
    if as_json:
        click.echo(json.dumps({"schema_version": 1} | dataclasses.asdict(packed)))
    elif not quiet:
        weights = "the engine holds its weights" if packed.checkpoint is None else "with weights"
        click.echo(
            f"{output}: {packed.num_files} files, {packed.num_bytes / 1e9:.2f} GB, {weights}; "
            f"{packed.copied_bytes / 1e9:.2f} GB copied, the rest shared with what was packed"
        )
