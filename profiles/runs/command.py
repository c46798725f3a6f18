"""`nemotrt profile run`: parse, call, print."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotrt.commandline.kinds import COUNT, FloatRange, choices
from nemotrt.commandline.options import options_of
from nemotrt.commandline.shared import (
    config_option,
    dry_run_option,
    force_option,
    json_option,
    output_option,
    quiet_option,
)
from nemotrt.engines.artefact.named import TARGET, engine_folder, is_address, rebuild_option
from nemotrt.engines.checkpoint.hub.parameter import MODEL, offline_option
from nemotrt.engines.model.numerics import BUILT, Precision
from nemotrt.errors import ConfigError, NemotrtError
from nemotrt.profiles.hardware.gpu_choice import GpuChoice
from nemotrt.profiles.hardware.on_busy import on_busy_option
from nemotrt.profiles.load.choice.options import LoadChoice
from nemotrt.profiles.load.targets.options import (
    STATED,
    TargetOptions,
    read_extra,
    read_facts,
    read_headers,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from nemotrt.profiles.load.driver import Drive
    from nemotrt.profiles.load.target import Target
    from nemotrt.profiles.load.workload import Workload
    from nemotrt.profiles.runs.measure import Observers, Progress
    from nemotrt.profiles.runs.record.result import ProfileResult
PAIRS: Any = {"multiple": True, "metavar": "NAME=VALUE"}


@click.command()
@click.argument("target", type=TARGET)
@rebuild_option
@output_option("Folder of the results.", default=Path("profile"))
@options_of(LoadChoice)
@click.option("-c", "--concurrency", default="1", show_default=True, help="Users: 8, or 1,4,16.")
@click.option(
    "--search", is_flag=True, help="Find the best concurrency: 1, 2, 4, ..., then between."
)
@click.option("--repeat", type=COUNT, default=1, help="Runs of the same load.")
@click.option(
    "--within",
    type=FloatRange(0.01),
    help="Repeat until the mean throughput is known to so many percent; --repeat is the most.",
)
@click.option("--resume", is_flag=True, help="Keep the complete runs in OUTPUT, and go on.")
@options_of(TargetOptions, without=("tensorrt_llm_python",))
@click.option("--header", "headers", callback=read_headers, help="Of every request.", **PAIRS)
@click.option("--extra", callback=read_extra, help="In every request; null drops ours.", **PAIRS)
@click.option(
    "--driver",
    type=click.Choice(["nemotrt", "aiperf"]),
    default="nemotrt",
    show_default=True,
    help="Who sends the load: our own driver, or NVIDIA's AIPerf (OpenAI endpoints).",
)
@click.option("--aiperf", default="aiperf", help="AIPerf's program.  [default: on the PATH]")
@click.option(
    "--metrics-url",
    help="The server's Prometheus page.  [default: of an OpenAI endpoint, where it has it]",
)
@click.option("--predict", help="Set the planner beside it: a GPU's name, or this-machine.")
@click.option(
    "--predict-model",
    type=MODEL,
    metavar="MODEL",
    help="Known name, folder or hub id.  [default: the engine directory]",
)
@click.option(
    "--predict-precision", type=choices(BUILT), help="[default: the target's, else the model's]"
)
@click.option(
    "--precision",
    type=choices(BUILT),
    help="What a server runs in, where it does not say: bf16, fp8, ...",
)
@click.option(
    "--fact",
    "facts",
    callback=read_facts,
    help=f"What a server has and does not say: {', '.join(STATED)}.",
    **PAIRS,
)
@click.option(
    "--hardware-from",
    metavar="URL",
    help="Take a server's hardware from `nemotrt profile gpu --serve` beside it.",
)
@on_busy_option
@click.option("--no-gpu", is_flag=True, help="Watch no GPU.")
@options_of(GpuChoice)
@force_option
@dry_run_option
@json_option
@quiet_option
@offline_option
@config_option
@click.pass_context
def run(
    ctx: click.Context,
    /,
    target: str,
    output: Path,
    load_choice: LoadChoice,
    target_options: TargetOptions,
    gpu_choice: GpuChoice,
    **options: Any,
) -> None:
    """Measure TARGET and write result.json (every sample) and report.html (one page).

    TARGET is an engine directory, a Triton server (http://127.0.0.1:8000 or
    grpc://127.0.0.1:8001), or an OpenAI-compatible one (http://127.0.0.1:8080/v1). Of a checkpoint
    (a folder, OWNER/NAME[@REVISION] on the hub, or tiny) an engine for the CPU is built into the
    cache, once.
    """
    from nemotrt.profiles.load.choice.choice import choose, parse_concurrencies
    from nemotrt.profiles.load.targets.opening import open_target
    from nemotrt.profiles.runs.progress import live_progress
    from nemotrt.profiles.runs.sweep import MIN_REPEATS, Sweep

    if options["search"] and (load_choice.trace or load_choice.requests_per_s):
        raise ConfigError("--search looks for a concurrency: leave out --trace and --request-rate.")
    num_repeats, within = options["repeat"], options["within"]
    if within is not None and num_repeats < MIN_REPEATS:
        raise ConfigError(
            f"--within needs --repeat {MIN_REPEATS} or more, the most runs of a load."
        )
    if options["facts"] and not is_address(target):
        raise ConfigError("--fact is for a server: an engine directory says what it has.")
    if options["hardware_from"] and (not is_address(target) or "hardware" in options["facts"]):
        raise ConfigError("--hardware-from is for a server whose --fact hardware is not given.")
    if options["resume"] and options["force"]:
        raise ConfigError("--resume keeps runs and --force replaces them: give one of the two.")
    workloads = choose(load_choice, parse_concurrencies(options["concurrency"]), num_repeats)
    if options["dry_run"]:
        _check_names(target_options, options["predict_model"])
        for workload in workloads:
            click.echo(workload)
        _engine_of(target, rebuild=options["rebuild"])
        return
    target = _engine_of(target, rebuild=options["rebuild"])
    if options["hardware_from"]:
        from nemotrt.profiles.hardware.exporter.sidecar import hardware_of

        options["facts"] |= {"hardware": hardware_of(options["hardware_from"])}
    is_silent = options["quiet"] or options["as_json"]

    def make_target(workload: "Workload") -> "Target":
        return open_target(target, workload, target_options)

    with live_progress(quiet=is_silent) as show:
        sweep = Sweep(
            make_target,
            output,
            force=options["force"],
            resume=options["resume"],
            within=(within or 0.0) / 100,
            watchers=_observers(target, None if options["no_gpu"] else gpu_choice, options, show),
            drive=_drive(options),
            on_busy=options["on_busy"],
        )
        if options["search"]:
            results = sweep.search(lambda users: choose(load_choice, (users,), num_repeats))
        else:
            results = sweep.run(workloads)
    _print(results, output, as_json=options["as_json"], quiet=options["quiet"])
    if results[-1].status == "interrupted":
        ctx.exit(130)
    if failed := [result for result in results if result.status == "failed"]:
        which = (
            f"the run of {failed[0].workload.concurrency} at a time" if results[1:] else "the run"
        )
        raise NemotrtError(f"{which} failed: {failed[0].reason} The rest is in {output}.")


def _engine_of(target: str, *, rebuild: bool) -> str:
    """Return the target; in the place of a checkpoint its engine."""
    if is_address(target):
        if rebuild:
            raise ConfigError(f"--rebuild is for checkpoints; {target} is a server.")
        return target
    return str(engine_folder(target, rebuild=rebuild))


def _drive(options: dict[str, Any]) -> "Drive":
    """Return the load driver that was chosen; raises EnvironmentUnfitError if it is missing."""
    if options["driver"] == "aiperf":
        from nemotrt.profiles.runs.aiperf.drive import aiperf_driver

        return aiperf_driver(options["aiperf"])
    from nemotrt.profiles.load.driver import drive

    return drive


def _observers(
    target: str,
    gpus: GpuChoice | None,
    options: dict[str, Any],
    show: "Callable[[Progress], None] | None",
) -> "Observers":
    """Return who watches the run, by the flags."""
    from nemotrt.profiles.planning.answers.options import DeploymentOptions
    from nemotrt.profiles.runs.measure import Observers

    prediction = None
    if options["predict"]:
        model = options["predict_model"] or target
        precision = options["predict_precision"] or options["precision"]
        prediction = DeploymentOptions(
            model, options["predict"], Precision(precision) if precision else None
        )
    return Observers(
        on_progress=show,
        gpus=gpus,
        metrics_url=options["metrics_url"] or "",
        prediction=prediction,
        facts=options["facts"]
        | ({"precision": options["precision"]} if options["precision"] else {}),
    )


def _check_names(options: TargetOptions, model: str | None) -> None:
    """Raise, as a run would say it later, where what is named must be downloaded first."""
    from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
    from nemotrt.engines.checkpoint.hub.parts import Part
    from nemotrt.profiles.planning.sources.known_models import load_model

    if options.tokenizer is not None:
        checkpoint_folder(options.tokenizer, Part.TOKENIZER)
    if options.opening.checkpoint is not None:
        checkpoint_folder(options.opening.checkpoint)
    if model is not None:
        load_model(model)


def _print(results: "list[ProfileResult]", output: Path, *, as_json: bool, quiet: bool) -> None:
    """Print the metrics of each run."""
    from nemotrt.profiles.reports.summary import summary_lines

    if as_json:
        texts = [result.model_dump_json(exclude={"requests", "steps"}) for result in results]
        many = f'{{"schema_version":1,"runs":[{",".join(texts)}]}}'
        click.echo(texts[0] if len(texts) == 1 else many)
    elif not quiet:
        for line in (line for result in results for line in summary_lines(result)):
            click.echo(line)
        click.echo(f"{output}: result.json, report.html", err=True)
