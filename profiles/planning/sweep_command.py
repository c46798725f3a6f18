"""`nemotrt plan sweep`: one plan for each GPU x precision x length."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ConfigError, NoFeasiblePlanError
from nemotrt.files.writing import check_writable, write_text
from nemotrt.profiles.hardware.gpu_profile import known_gpus
from nemotrt.profiles.planning.answers.sweep import heat_maps, sweep, to_csv
from nemotrt.profiles.planning.options import config_option, deployment_options, to_options

FILE = click.Path(dir_okay=False, path_type=Path)
DEFAULT_LENGTHS = ("1024:8192", "8192:16384", "32768:1024")


@click.command("sweep")
@click.argument("model")
@click.option("--gpu", "gpus", multiple=True, metavar="NAME|FILE",
              help="GPU; repeat for several [default: all].")  # fmt: skip
@click.option("--precision", "precisions", multiple=True,
              type=click.Choice([p.value for p in Precision]),
              help="Precision; repeat for several "
              "[default: the checkpoint's own, else what the GPUs have].")  # fmt: skip
@click.option("--lengths", multiple=True, metavar="ISL:OSL", default=DEFAULT_LENGTHS,
              show_default=True, help="Prompt and answer tokens; repeat for several.")  # fmt: skip
@click.option("--baseline", metavar="MODEL", help="Model to compare with.")
@deployment_options
@click.option("--csv", "csv_path", type=FILE, help="Write CSV here instead of to stdout.")
@click.option("--plot", type=FILE, help="Write heat maps to an .html or .png file.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", is_flag=True, help="Print nothing but results.")
@click.option("--dry-run", is_flag=True, help="Plan, but write no file.")
@click.option("--force", is_flag=True, help="Overwrite files.")
@config_option
def sweep_command(
    model: str,
    gpus: tuple[str, ...],
    precisions: tuple[str, ...],
    lengths: tuple[str, ...],
    **flags: Any,
) -> None:
    """Plan MODEL over GPUs, precisions and lengths, to CSV and a heat map."""
    is_overwrite = flags["force"] or flags["dry_run"]
    for path in (flags["csv_path"], flags["plot"]):
        if path:
            check_writable(path, is_overwrite)
    pairs = [_lengths(text) for text in lengths]
    options = to_options(model, "a10g", flags)
    names = gpus or tuple(known_gpus())
    chosen = [Precision(p) for p in precisions]
    rows = list(sweep(options, names, chosen, pairs, flags["baseline"]))
    if flags["csv_path"] and not flags["dry_run"]:
        write_text(flags["csv_path"], to_csv(rows), is_overwrite)
    if flags["is_json"]:
        found = {"schema_version": 1, "rows": [asdict(row) for row in rows]}
        click.echo(json.dumps(found, allow_nan=False, indent=2))
    elif not flags["csv_path"]:
        click.echo(to_csv(rows), nl=False)
    if flags["plot"] and not flags["dry_run"]:
        from nemotrt.charts.page import write_plot
        from nemotrt.charts.spec import About

        title = f"{model}: planned throughput (predicted)"
        notes = tuple(dict.fromkeys(f"Note: {row.note}." for row in rows if row.note))
        about = About(title, notes=notes)
        write_plot(flags["plot"], about, list(heat_maps(rows)), is_overwrite)
    for path in (flags["csv_path"], flags["plot"]):
        if path and not flags["quiet"]:
            click.echo(f"{'would write' if flags['dry_run'] else 'wrote'} {path}", err=True)
    if all(row.problem for row in rows):
        raise NoFeasiblePlanError(f"no combination can run; the first: {rows[0].problem}")


def _lengths(text: str) -> tuple[int, int]:
    """Return (isl, osl) of "8192:16384"."""
    parts = text.split(":")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"--lengths {text!r} is not ISL:OSL, for example 8192:16384.")
    return int(parts[0]), int(parts[1])
