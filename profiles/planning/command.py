"""`nemotrt plan`: how much fits, how fast it runs and why, before a GPU is rented."""

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from nemotrt.commandline import (
    ABOVE_0,
    COUNT,
    FILE,
    DefaultGroup,
    config_option,
    dry_run_option,
    force_option,
    given_options,
    json_option,
    option,
    options_of,
    output_option,
    quiet_option,
)
from nemotrt.engines.checkpoint.hub.parameter import MODEL, offline_option
from nemotrt.engines.model.numerics import BUILT, Precision
from nemotrt.errors import ConfigError
from nemotrt.files.writing import check_file, write_file
from nemotrt.profiles.planning.answers.built import built_engines
from nemotrt.profiles.planning.answers.comparison import compare
from nemotrt.profiles.planning.answers.deployment import (
    THIS_MACHINE,
    Deployment,
    DeploymentOptions,
    deploy,
)
from nemotrt.profiles.planning.answers.limits import check_limits, limits_yaml
from nemotrt.profiles.planning.answers.plan import Plan, make_plan
from nemotrt.profiles.planning.answers.search import (
    LatencyTarget,
    best_under,
    curve,
    each_precision,
)
from nemotrt.profiles.planning.measured.calibrate_command import calibrate_and_tell
from nemotrt.profiles.planning.measured.validate_command import validate_command
from nemotrt.profiles.planning.sessions.answer import (
    SessionsPlan,
    plan_sessions,
    require_agents,
)
from nemotrt.profiles.planning.sessions.load import SessionChoice
from nemotrt.profiles.planning.sweep_command import sweep_command

ANY_PRECISION = "any"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a deployment, and where the answer goes."""

    batch_size: int | None = option(
        None, "Sequences in the engine.", kind=COUNT, unset="as many as fit"
    )
    concurrency: int | None = option(
        None, "Users that wait for answers.", kind=COUNT, unset="as many as fit"
    )
    baseline: str | None = option(None, "Model to compare with.", kind=MODEL, metavar="MODEL")
    usd_per_hour: float | None = option(
        None, "Price of all GPUs, for the price of a million tokens.", kind=ABOVE_0
    )
    write_limits: Path | None = option(None, "Write the limits for `nemotrt build`.", kind=FILE)
    plot: Path | None = option(None, "Write charts to an .html or .png file.", kind=FILE)
    curve: bool = option(False, "Add the throughput-latency curve.")
    output: Path | None = None
    as_json: bool = False
    quiet: bool = False
    dry_run: bool = False
    force: bool = False


@click.group(
    cls=DefaultGroup,
    default="model",
    no_args_is_help=False,
    options_metavar="",
    subcommand_metavar="MODEL [OPTIONS] | COMMAND [OPTIONS]",
)
def plan() -> None:
    """Predict memory, throughput and latency of MODEL on a GPU, and say what limits them.

    MODEL is a known name, a config.json, a checkpoint folder or OWNER/NAME[@REVISION] on the hub,
    of which only the configuration is downloaded. Every figure is a prediction: low, best and high
    come from the spread of measured corrections.
    """


@plan.command("model", hidden=True)
@click.argument("model", default="", type=MODEL)
@click.option(
    "--precision",
    "precision_name",
    type=click.Choice([*(p.value for p in BUILT), ANY_PRECISION]),
    help="Precision of the linears; any: the fastest within the target.  "
    "[default: the checkpoint's own, else bf16]",
)
@options_of(DeploymentOptions)
@options_of(LatencyTarget)
@options_of(SessionChoice)
@options_of(Asked)
@click.option(
    "--calibrate",
    "results",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Fit the GPU's corrections to these runs.",
)
@output_option("Write the fitted or measured GPU profile here.", FILE)
@json_option
@quiet_option
@dry_run_option
@force_option
@offline_option
@config_option
def plan_model(
    deployment_options: DeploymentOptions,
    precision_name: str | None,
    latency_target: LatencyTarget,
    session_choice: SessionChoice,
    asked: Asked,
    results: tuple[Path, ...],
) -> None:
    """Plan one model on one GPU."""
    is_any = precision_name == ANY_PRECISION
    precision = Precision(precision_name) if precision_name and not is_any else None
    options = replace(deployment_options, precision=precision)
    given = given_options(click.get_current_context())
    load = session_choice.load(options, given)
    if load:
        options = options.at(isl=load.prompt_tokens(load.num_turns), osl=load.osl)
    if asked.output and not results and options.gpu != THIS_MACHINE:
        raise click.UsageError("--output is what --calibrate or --gpu this-machine writes.")
    if not (options.model or results):
        raise ConfigError(
            "Missing argument 'MODEL': a known name, a config.json or a checkpoint folder, such as "
            f"`nemotrt plan nemotron-nano-9b-v2 --gpu {options.gpu}`; --help has the rest."
        )
    if options.gpu == THIS_MACHINE and sys.stderr.isatty() and not asked.quiet:
        click.echo("measuring this machine, about ten seconds", err=True)
    if results:
        calibrate_and_tell(
            options,
            results,
            asked.output,
            as_json=asked.as_json,
            dry_run=asked.dry_run,
            force=asked.force,
        )
        return
    _check_outputs(asked)
    if load and is_any:
        raise ConfigError("--sessions plans one precision, not any.")
    if load or (latency_target == LatencyTarget() and not is_any):
        deployment, batch_size = deploy(options), asked.batch_size
    elif asked.batch_size is not None:
        raise ConfigError("--batch-size cannot be combined with a latency target or any precision.")
    else:
        found = each_precision(options) if is_any else [deploy(options)]
        deployment, batch_size = best_under(found, latency_target)
    users = None if load else asked.concurrency
    record = make_plan(deployment, users, batch_size, asked.usd_per_hour)
    if asked.write_limits:
        check_limits(deployment, record.batch_size)
    baseline = None
    if asked.baseline:
        is_own = options.precision is None and not is_any
        same = options.at(
            model=asked.baseline,
            precision=None if is_own else deployment.formats.precision,
        )
        baseline = deploy(same, deployment.gpu)
        record = compare(deployment, record, baseline, asked.usd_per_hour)
        record = replace(record, engines=built_engines(deployment, baseline))
    sessions = None
    if load:
        slots, gib = record.batch_size, session_choice.prefix_cache_gib
        load = replace(load, concurrency=asked.concurrency or slots)
        sessions = plan_sessions(deployment, load, slots, gib, latency_target)
        require_agents(sessions)
    _print(deployment, record, sessions, asked)
    _write(deployment, record, baseline, sessions, asked)


def _check_outputs(asked: Asked) -> None:
    """Raise before any work where an output file cannot be written."""
    if asked.plot:
        from nemotrt.charts.page import check_plot_path

        check_plot_path(asked.plot, asked.force or asked.dry_run)
    for path in (asked.write_limits, asked.output):
        if path:
            check_file(path, force=asked.force or asked.dry_run)


def _print(
    deployment: Deployment, record: Plan, sessions: SessionsPlan | None, asked: Asked
) -> None:
    """Print the plan, as JSON or as tables."""
    points = curve(deployment) if asked.curve else []
    if asked.as_json:
        raw = asdict(record)
        if asked.curve:
            raw["curve"] = [asdict(point) for point in points]
        if sessions:
            raw["sessions"] = asdict(sessions)
        click.echo(json.dumps(raw, allow_nan=False, indent=2))
        return
    from nemotrt.profiles.planning.output.plan_table import curve_table, plan_table, print_tables

    tables = [plan_table(record), *([curve_table(points)] if points else [])]
    if sessions:
        from nemotrt.profiles.planning.output.session_output import note_lines, sessions_table

        tables += [sessions_table(sessions), *note_lines(sessions)]
    print_tables(tables)


def _write(
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
            from nemotrt.profiles.planning.measured.calibration import profile_yaml

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
            notes = (*ratio_text(record).splitlines(), *said)
            assumed = {"in / out": f"{record.isl} / {record.osl}", "users": record.concurrency,
                       "batch": record.batch_size, "KV cache": record.kv_dtype,
                       "states": record.ssm_dtype, "engine": record.engine}  # fmt: skip
            if sessions:
                from nemotrt.profiles.planning.output import session_output

                charts.insert(0, session_output.sessions_chart(sessions))
                notes += tuple(session_output.session_lines(sessions))
            about = About(title, assumptions=tuple(assumed.items()), notes=notes)
            write_plot(asked.plot, about, charts, asked.force)
    for path in written:
        if not asked.quiet:
            click.echo(f"{'would write' if asked.dry_run else 'wrote'} {path}", err=True)


plan.add_command(sweep_command)
plan.add_command(validate_command)
