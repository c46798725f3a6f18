"""`nemotrt plan`: how much fits, how fast it runs and why, before a GPU is rented."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ConfigError
from nemotrt.files.writing import check_writable, write_text
from nemotrt.profiles.planning.answers.comparison import compare
from nemotrt.profiles.planning.answers.deployment import (
    THIS_MACHINE,
    Deployment,
    DeploymentOptions,
    deploy,
)
from nemotrt.profiles.planning.answers.limits import limits_yaml
from nemotrt.profiles.planning.answers.plan import Plan, make_plan
from nemotrt.profiles.planning.answers.search import (
    LatencyTarget,
    best_under,
    curve,
    each_precision,
)
from nemotrt.profiles.planning.default_group import DefaultGroup
from nemotrt.profiles.planning.measured.validate_command import validate_command
from nemotrt.profiles.planning.options import (
    DEFAULTS,
    config_option,
    deployment_options,
    to_options,
)
from nemotrt.profiles.planning.sweep_command import sweep_command

ANY_PRECISION = "any"
FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(cls=DefaultGroup)
def plan() -> None:
    """Predict memory, throughput and latency of MODEL on a GPU, and say what limits them.

    MODEL is a known name, a config.json or a checkpoint folder. Every figure is a prediction:
    low, best and high come from the spread of measured corrections.
    """


@plan.command("model", hidden=True)
@click.argument("model", required=False)
@click.option("--gpu", default=DEFAULTS.gpu, show_default=True, metavar="NAME|FILE",
              help="GPU name, profile file, or this-machine.")  # fmt: skip
@click.option("--precision", type=click.Choice([*(p.value for p in Precision), ANY_PRECISION]),
              help="Precision of the linears; any: the fastest within the target "
              "[default: the checkpoint's own, else bf16].")  # fmt: skip
@click.option("--isl", type=click.IntRange(min=1), default=DEFAULTS.isl, show_default=True,
              help="Tokens of a prompt.")  # fmt: skip
@click.option("--osl", type=click.IntRange(min=1), default=DEFAULTS.osl, show_default=True,
              help="Tokens of an answer.")  # fmt: skip
@click.option("--batch-size", type=click.IntRange(min=1),
              help="Sequences in the engine [default: as many as fit].")  # fmt: skip
@click.option("--concurrency", type=click.IntRange(min=1),
              help="Users that wait for answers [default: as many as fit].")  # fmt: skip
@click.option("--baseline", metavar="MODEL", help="Model to compare with.")
@click.option("--tpot-ms", type=click.FloatRange(min=0, min_open=True),
              help="Slowest accepted time per output token.")  # fmt: skip
@click.option("--ttft-ms", type=click.FloatRange(min=0, min_open=True),
              help="Slowest accepted time to the first token.")  # fmt: skip
@click.option("--usd-per-hour", type=click.FloatRange(min=0, min_open=True),
              help="Price of all GPUs, for the price of a million tokens.")  # fmt: skip
@deployment_options
@click.option("--calibrate", "results", type=click.Path(exists=True, path_type=Path),
              multiple=True, help="Fit the GPU's corrections to these runs.")  # fmt: skip
@click.option("--output", type=FILE, help="Write the fitted or measured GPU profile here.")
@click.option("--write-limits", type=FILE, help="Write the limits for `nemotrt build`.")
@click.option("--plot", type=FILE, help="Write charts to an .html or .png file.")
@click.option("--curve", "is_curve", is_flag=True, help="Add the throughput-latency curve.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", is_flag=True, help="Print nothing but results.")
@click.option("--dry-run", is_flag=True, help="Plan, but write no file.")
@click.option("--force", is_flag=True, help="Overwrite files.")
@config_option
def plan_model(model: str | None, gpu: str, results: tuple[Path, ...], **flags: Any) -> None:
    """Plan one model on one GPU."""
    if flags["output"] and not results and gpu != THIS_MACHINE:
        raise click.UsageError("--output is what --calibrate or --gpu this-machine writes.")
    if gpu == THIS_MACHINE and sys.stderr.isatty() and not flags["quiet"]:
        click.echo("measuring this machine, about ten seconds", err=True)
    if results:
        _calibrate(model or "", gpu, results, flags)
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.")
    _check_outputs(flags)
    options = to_options(model, gpu, {**flags, "precision": _first_precision(flags)})
    deployment, batch_size = _choose(options, flags)
    record = make_plan(deployment, flags["concurrency"], batch_size, flags["usd_per_hour"])
    baseline = None
    if flags["baseline"]:
        is_own = options.precision is None and flags["precision"] != ANY_PRECISION
        precision = None if is_own else deployment.formats.precision
        same = options.at(model=flags["baseline"], precision=precision)
        baseline = deploy(same, deployment.gpu)
        record = compare(deployment, record, baseline, flags["usd_per_hour"])
    _print(deployment, record, flags)
    _write(deployment, record, baseline, flags)


def _first_precision(flags: dict[str, Any]) -> str | None:
    """Return the precision that was given, if any; `any` is resolved afterwards."""
    chosen: str | None = flags["precision"]
    return None if chosen == ANY_PRECISION else chosen


def _choose(options: DeploymentOptions, flags: dict[str, Any]) -> tuple[Deployment, int | None]:
    """Return the deployment, and its batch where the user or a latency target decides it."""
    target = LatencyTarget(flags["tpot_ms"], flags["ttft_ms"])
    is_any = flags["precision"] == ANY_PRECISION
    if target == LatencyTarget() and not is_any:
        return deploy(options), flags["batch_size"]
    if flags["batch_size"] is not None:
        raise ConfigError("--batch-size cannot be combined with a latency target or any precision.")
    return best_under(each_precision(options) if is_any else [deploy(options)], target)


def _calibrate(model: str, gpu: str, results: tuple[Path, ...], flags: dict[str, Any]) -> None:
    """Fit, write the profile, and say how far the rows were off before and after."""
    from nemotrt.profiles.planning.measured.calibration import calibrate, profile_yaml

    output: Path | None = flags["output"]
    if output is None:
        raise click.UsageError("--calibrate needs --output FILE.yaml.")
    if not flags["dry_run"]:
        check_writable(output, flags["force"])
    options = to_options(model, gpu, {**flags, "precision": _first_precision(flags)})
    fitted = calibrate(results, options)
    if not flags["dry_run"]:
        write_text(output, profile_yaml(fitted.gpu), flags["force"])
    summary = {
        "schema_version": 1,
        "gpu": fitted.gpu.name,
        "num_rows": fitted.num_rows,
        "mape_before": fitted.mape_before,
        "mape_after": fitted.mape_after,
        "output": None if flags["dry_run"] else str(output),
    }
    if flags["is_json"]:
        click.echo(json.dumps(summary, allow_nan=False, indent=2))
        return
    click.echo(
        f"{fitted.gpu.name}: {fitted.num_rows} rows, mean error {fitted.mape_before:.1%} before, "
        f"{fitted.mape_after:.1%} after."
    )


def _check_outputs(flags: dict[str, Any]) -> None:
    """Raise before any work where an output file cannot be written."""
    if flags["plot"]:
        from nemotrt.charts.page import check_plot_path

        check_plot_path(flags["plot"], flags["force"] or flags["dry_run"])
    for path in (flags["write_limits"], flags["output"]):
        if path:
            check_writable(path, flags["force"] or flags["dry_run"])


def _print(deployment: Deployment, record: Plan, flags: dict[str, Any]) -> None:
    """Print the plan, as JSON or as tables."""
    points = curve(deployment) if flags["is_curve"] else []
    if flags["is_json"]:
        raw = asdict(record)
        if flags["is_curve"]:
            raw["curve"] = [asdict(point) for point in points]
        click.echo(json.dumps(raw, allow_nan=False, indent=2))
        return
    from nemotrt.profiles.planning.output.plan_table import curve_table, plan_table, print_tables

    print_tables([plan_table(record), *([curve_table(points)] if points else [])])


def _write(
    deployment: Deployment, record: Plan, baseline: Deployment | None, flags: dict[str, Any]
) -> None:
    """Write the limits and the charts that were asked for."""
    written = [path for path in (flags["write_limits"], flags["plot"], flags["output"]) if path]
    if not flags["dry_run"]:
        if flags["output"]:
            from nemotrt.profiles.planning.measured.calibration import profile_yaml

            write_text(flags["output"], profile_yaml(deployment.gpu), flags["force"])
        if flags["write_limits"]:
            write_text(flags["write_limits"], limits_yaml(record), flags["force"])
        if flags["plot"]:
            from nemotrt.charts.page import write_plot
            from nemotrt.charts.spec import About
            from nemotrt.profiles.planning.output.plan_charts import plan_charts
            from nemotrt.profiles.planning.output.plan_table import note_lines, ratio_text

            title = f"{record.model} on {record.gpu}, {record.precision} (predicted)"
            charts = list(plan_charts(deployment, record, baseline))
            notes = (*ratio_text(record).splitlines(), *note_lines(record))
            assumed = {"in / out": f"{record.isl} / {record.osl}", "users": record.concurrency,
                       "batch": record.batch_size, "KV cache": record.kv_dtype,
                       "states": record.ssm_dtype, "engine": record.engine}  # fmt: skip
            about = About(title, assumptions=tuple(assumed.items()), notes=notes)
            write_plot(flags["plot"], about, charts, flags["force"])
    for path in written:
        if not flags["quiet"]:
            click.echo(f"{'would write' if flags['dry_run'] else 'wrote'} {path}", err=True)


plan.add_command(sweep_command)
plan.add_command(validate_command)
