"""`nemotrt plan sweep`: one plan for each GPU x precision x length."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from nemotrt.commandline.kinds import FILE, choices
from nemotrt.commandline.options import options_of
from nemotrt.commandline.shared import (
    config_option,
    dry_run_option,
    force_option,
    json_option,
    quiet_option,
)
from nemotrt.engines.checkpoint.hub.parameter import MODEL, offline_option
from nemotrt.engines.model.numerics import BUILT, Precision
from nemotrt.errors import ConfigError, NoFeasiblePlanError
from nemotrt.files.writing import check_file, write_file
from nemotrt.profiles.hardware.gpu_profile import known_gpus
from nemotrt.profiles.planning.answers.options import DeploymentOptions
from nemotrt.profiles.planning.sweeps.sweep import heat_maps, sweep, to_csv

DEFAULT_LENGTHS = ("1024:8192", "8192:16384", "32768:1024")


@click.command("sweep")
@click.argument("model", type=MODEL)
@click.option(
    "--gpu", "gpus", multiple=True, metavar="NAME|FILE", help="Repeat for several [default: all]."
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=choices(BUILT),
    help="Repeat for several [default: the checkpoint's own, else what the GPUs have].",
)
@click.option(
    "--lengths",
    multiple=True,
    metavar="ISL:OSL",
    default=DEFAULT_LENGTHS,
    show_default=True,
    help="Prompt and answer tokens; repeat for several.",
)
@click.option("--baseline", type=MODEL, metavar="MODEL", help="Model to compare with.")
@options_of(DeploymentOptions, without=("gpu", "precision", "isl", "osl"))
@click.option("--csv", "csv_path", type=FILE, help="Write CSV here instead of to stdout.")
@click.option("--plot", type=FILE, help="Write heat maps to an .html or .png file.")
@json_option
@quiet_option
@dry_run_option
@force_option
@offline_option
@config_option
def sweep_command(
    gpus: tuple[str, ...],
    precisions: tuple[Precision, ...],
    lengths: tuple[str, ...],
    baseline: str | None,
    deployment_options: DeploymentOptions,
    csv_path: Path | None,
    plot: Path | None,
    as_json: bool,
    quiet: bool,
    dry_run: bool,
    force: bool,
) -> None:
    """Plan MODEL over GPUs, precisions and lengths, to CSV and a heat map."""
    from nemotrt.charts.page import check_plot_path, write_plot
    from nemotrt.charts.spec import About

    is_overwrite = force or dry_run
    if csv_path:
        check_file(csv_path, force=is_overwrite)
    if plot:
        check_plot_path(plot, is_overwrite)
    pairs = [_lengths(text) for text in lengths]
    names = gpus or tuple(known_gpus())
    rows = list(sweep(deployment_options, names, precisions, pairs, baseline))
    if csv_path and not dry_run:
        write_file(csv_path, to_csv(rows), force=is_overwrite)
    if as_json:
        found = {"schema_version": 1, "rows": [asdict(row) for row in rows]}
        click.echo(json.dumps(found, allow_nan=False, indent=2))
    elif not csv_path:
        click.echo(to_csv(rows), nl=False)
    if plot and not dry_run:
        title = f"{deployment_options.model}: planned throughput (predicted)"
        notes = tuple(dict.fromkeys(f"Note: {row.note}." for row in rows if row.note))
        write_plot(plot, About(title, notes=notes), list(heat_maps(rows)), is_overwrite)
    for path in (csv_path, plot):
        if path and not quiet:
            click.echo(f"{'would write' if dry_run else 'wrote'} {path}", err=True)
    if all(row.problem for row in rows):
        raise NoFeasiblePlanError(f"no combination can run; the first: {rows[0].problem}")


def _lengths(text: str) -> tuple[int, int]:
    """Return (isl, osl) of "8192:16384"."""
    parts = text.split(":")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"--lengths {text!r} is not ISL:OSL, for example 8192:16384.")
    return int(parts[0]), int(parts[1])
