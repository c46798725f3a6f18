"""How a plan is told: what is asked of it, printed, drawn, written to files."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotrt.commandline.kinds import ABOVE_0, COUNT, FILE
from nemotrt.commandline.options import option
from nemotrt.engines.checkpoint.hub.parameter import MODEL
from nemotrt.files.writing import check_file, write_file
from nemotrt.profiles.planning.answers.arrivals import OpenLoop, notes
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.limits import limits_yaml
from nemotrt.profiles.planning.answers.plan import Plan
from nemotrt.profiles.planning.answers.search import curve
from nemotrt.profiles.planning.launch.table import known_launchers
from nemotrt.profiles.planning.sessions.answer import SessionsPlan

if TYPE_CHECKING:
    from nemotrt.profiles.planning.launch.launch import Launch


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a deployment, and where the answer goes."""

    batch_size: int | None = option(
        None, "Sequences in the engine.", kind=COUNT, unset="as many as fit"
    )
    concurrency: int | None = option(
        None, "Users that wait for answers.", kind=COUNT, unset="as many as fit"
    )
    rate: float | None = option(
        None,
        "Requests per second that come at random (Poisson): tell how long they wait.",
        kind=ABOVE_0,
    )
    baseline: str | None = option(None, "Model to compare with.", kind=MODEL, metavar="MODEL")
    usd_per_hour: float | None = option(
        None, "Price of all GPUs, for the price of a million tokens.", kind=ABOVE_0
    )
    launch: str | None = option(
        None,
        "Add the command that serves the plan with that engine.",
        kind=click.Choice(known_launchers()),
    )
    write_limits: Path | None = option(None, "Write the limits for `nemotrt build`.", kind=FILE)
    plot: Path | None = option(None, "Write charts to an .html or .png file.", kind=FILE)
    curve: bool = option(False, "Add the throughput-latency curve.")
    output: Path | None = None
    as_json: bool = False
    quiet: bool = False
    dry_run: bool = False
    force: bool = False


def check_outputs(asked: Asked) -> None:
    """Raise before any work where an output file cannot be written."""
    if asked.plot:
        from nemotrt.charts.page import check_plot_path

        check_plot_path(asked.plot, asked.force or asked.dry_run)
    for path in (asked.write_limits, asked.output):
        if path:
            check_file(path, force=asked.force or asked.dry_run)


def print_plan(
    deployment: Deployment,
    record: Plan,
    sessions: SessionsPlan | None,
    arrivals: OpenLoop | None,
    command: "Launch | None",
    asked: Asked,
) -> None:
    """Print the plan, as JSON or as tables."""
    points = curve(deployment) if asked.curve else []
    if asked.as_json:
        raw = asdict(record)
        if asked.curve:
            raw["curve"] = [asdict(point) for point in points]
        if sessions:
            raw["sessions"] = asdict(sessions)
        if arrivals:
            raw["open_loop"] = asdict(arrivals)
        if command:
            raw["launch"] = asdict(command)
        click.echo(json.dumps(raw, allow_nan=False, indent=2))
        return
    from nemotrt.profiles.planning.output.plan_table import curve_table, plan_table, print_tables

    tables = [plan_table(record), *([curve_table(points)] if points else [])]
    if sessions:
        from nemotrt.profiles.planning.output.session_output import note_lines, sessions_table

        tables += [sessions_table(sessions), *note_lines(sessions)]
    if arrivals:
        from nemotrt.profiles.planning.output.plan_table import arrivals_table

        tables += [arrivals_table(arrivals), *(f"Note: {note}." for note in notes(arrivals))]
    print_tables(tables)
    if command:
        from nemotrt.profiles.planning.output.launch_output import launch_text

        click.echo(launch_text(command), nl=False)


def write_plan(
    deployment: Deployment,
    record: Plan,
    baseline: Deployment | None,
    sessions: SessionsPlan | None,
    asked: Asked,
) -> None:
    """Write the limits and the charts that were asked for."""
    written = [path for path in (asked.write_limits, asked.plot, asked.output) if path]
    if not asked.dry_run:
        if asked.output:
            from nemotrt.profiles.hardware.gpu_profile import profile_yaml

            write_file(asked.output, profile_yaml(deployment.gpu), force=asked.force)
        if asked.write_limits:
            write_file(asked.write_limits, limits_yaml(record), force=asked.force)
        if asked.plot:
            from nemotrt.charts.page import write_plot
            from nemotrt.charts.spec import About
            from nemotrt.profiles.planning.output.plan_charts import plan_charts
            from nemotrt.profiles.planning.output.plan_table import (
                engine_lines,
                note_lines,
                ratio_text,
            )

            title = f"{record.model} on {record.gpu}, {record.precision} (predicted)"
            charts = list(plan_charts(deployment, record, baseline))
            said = (*note_lines(record), *engine_lines(record))
            lead, notes = "", (*ratio_text(record).splitlines(), *said)
            if record.ratio is not None and record.baseline is not None:
                lead = f"{notes[0].rstrip('.')} against {record.baseline.model}, predicted."
                notes = notes[1:]
            assumed = {"in / out": f"{record.isl} / {record.osl}", "users": record.concurrency,
                       "batch": record.batch_size, "KV cache": record.kv_dtype,
                       "states": record.ssm_dtype, "engine": record.engine}  # fmt: skip
            if sessions:
                from nemotrt.profiles.planning.output import session_output

                charts.insert(0, session_output.sessions_chart(sessions))
                notes += tuple(session_output.session_lines(sessions))
            about = About(title, lead, tuple(assumed.items()), notes)
            write_plot(asked.plot, about, charts, asked.force)
    for path in written:
        if not asked.quiet:
            click.echo(f"{'would write' if asked.dry_run else 'wrote'} {path}", err=True)
