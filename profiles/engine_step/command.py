"""`nemotrt profile engine`: parse, call, print."""

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from nemotrt.commandline.kinds import COUNT
from nemotrt.commandline.options import options_of
from nemotrt.commandline.shared import config_option, json_option
from nemotrt.engines.artefact.named import ENGINE, engine_folder, rebuild_option
from nemotrt.engines.artefact.options import OpenOptions, step_options
from nemotrt.engines.checkpoint.hub.parameter import offline_option
from nemotrt.profiles.engine_step.load import Load
from nemotrt.profiles.hardware.on_busy import OnBusy, on_busy_option

if TYPE_CHECKING:
    from nemotrt.profiles.engine_step.measurement import StepProfile


@click.command()
@click.argument("engine", type=ENGINE)
@options_of(Load)
@click.option("--steps", type=COUNT, default=20, show_default=True, help="Steps that are timed.")
@on_busy_option
@step_options
@rebuild_option
@json_option
@offline_option
@config_option
def engine(
    engine: str,
    load: Load,
    steps: int,
    on_busy: OnBusy,
    open_options: OpenOptions,
    rebuild: bool,
    as_json: bool,
) -> None:
    """Show where a step of a native ENGINE spends its time, against this machine's roofline.

    The roofline of an operator is the larger of its bytes over the bandwidth and its operations
    over the arithmetic rate; both limits are measured in the same run. With --tokens above 1 the
    steps are prompt chunks. The engine of a checkpoint is built into the cache, once.
    """
    from nemotrt.engines.opening import checked_manifest
    from nemotrt.profiles.engine_step.measurement import profile_step
    from nemotrt.profiles.hardware.busy import check_quiet, undisturbed

    folder = engine_folder(engine, rebuild=rebuild)
    manifest = checked_manifest(folder, open_options)
    found = undisturbed(
        on_busy,
        lambda: profile_step(folder, manifest, load, steps, open_options),
        lambda found: found.machine_use,
    )
    check_quiet(on_busy, found.machine_use)
    if as_json:
        click.echo(json.dumps(_as_json(found), allow_nan=False))
        return
    from rich.console import Console

    from nemotrt.profiles.engine_step.table import profile_table

    Console(width=120).print(profile_table(found))


def _as_json(found: "StepProfile") -> dict[str, Any]:
    """Return the figures."""
    return dataclasses.asdict(found) | {"machine_use": found.machine_use.model_dump()}
