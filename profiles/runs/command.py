"""`nemotrt profile run`: parse, call, print."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
from nemotrt.engines.checkpoint.hub.parameter import offline_option
from nemotrt.errors import ConfigError, NemotrtError
from nemotrt.profiles.hardware.gpu_choice import GpuChoice
from nemotrt.profiles.hardware.on_busy import OnBusy, on_busy_option
from nemotrt.profiles.load.choice.options import LoadChoice
from nemotrt.profiles.load.targets.options import (
    STATED,
    TargetOptions,
    read_extra,
    read_facts,
    read_headers,
)
from nemotrt.profiles.runs.options import MIN_REPEATS, Driver, RunOptions, SweepOptions

if TYPE_CHECKING:
    from nemotrt.profiles.load.driver import Drive
    from nemotrt.profiles.load.target import Target
    from nemotrt.profiles.load.workload import Workload
    from nemotrt.profiles.planning.answers.options import DeploymentOptions
    from nemotrt.profiles.runs.record.result import ProfileResult
PAIRS: Any = {"multiple": True, "metavar": "NAME=VALUE"}


@click.command()
@click.argument("target", type=TARGET)
@rebuild_option
@output_option("Folder of the results.", default=Path("profile"))
@options_of(LoadChoice)
@options_of(SweepOptions)
@options_of(TargetOptions, without=("tensorrt_llm_python", "lora"))
@click.option(
    "--header",
    "headers",
    callback=read_headers,
    help="HTTP header NAME=VALUE of every request; may be repeated.",
    **PAIRS,
)
@click.option(
    "--extra",
    callback=read_extra,
    help="Field NAME=VALUE of every request; null drops a field of ours; may be repeated.",
    **PAIRS,
)
@options_of(RunOptions)
@click.option(
    "--fact",
    "facts",
    callback=read_facts,
    help=f"What a server has and does not say: {', '.join(STATED)}.",
    **PAIRS,
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
    sweep_options: SweepOptions,
    target_options: TargetOptions,
    run_options: RunOptions,
    gpu_choice: GpuChoice,
    on_busy: OnBusy,
    *,
    rebuild: bool,
    no_gpu: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure TARGET and write result.json (every sample) and report.html (one page).

    TARGET is an engine directory, a Triton server (http://127.0.0.1:8000 or
    grpc://127.0.0.1:8001), or an OpenAI-compatible one (http://127.0.0.1:8080/v1). It may be a
    checkpoint too (a folder, OWNER/NAME[@REVISION] on the hub, or tiny), whose engine for the CPU
    is built into the cache, once.
    """
    from nemotrt.profiles.load.choice.choice import choose, parse_concurrencies
    from nemotrt.profiles.load.targets.opening import open_target
    from nemotrt.profiles.runs.measure import Observers
    from nemotrt.profiles.runs.progress import live_progress
    from nemotrt.profiles.runs.sweep import Sweep

    _check(target, load_choice, sweep_options, run_options, force=force)
    num_repeats, within = sweep_options.repeat, sweep_options.within_percent
    concurrencies = parse_concurrencies(sweep_options.concurrency)
    workloads = choose(load_choice, concurrencies, num_repeats)
    if dry_run:
        _check_names(target_options, run_options.predict_model)
        for workload in workloads:
            click.echo(workload)
        _engine_of(target, rebuild=rebuild)
        return
    target = _engine_of(target, rebuild=rebuild)
    facts = run_options.told()
    if run_options.hardware_from:
        from nemotrt.profiles.hardware.exporter.sidecar import hardware_of

        facts["hardware"] = hardware_of(run_options.hardware_from)

    def make_target(workload: "Workload") -> "Target":
        return open_target(target, workload, target_options)

    with live_progress(quiet=quiet or as_json) as show:
        sweep = Sweep(
            make_target,
            output,
            force=force,
            resume=sweep_options.resume,
            within=(within or 0.0) / 100,
            watchers=Observers(
                on_progress=show,
                gpus=None if no_gpu else gpu_choice,
                metrics_url=run_options.metrics_url,
                prediction=_prediction(target, run_options),
                facts=facts,
            ),
            drive=_drive(run_options),
            on_busy=on_busy,
        )
        if sweep_options.search:
            results = sweep.search(lambda users: choose(load_choice, (users,), num_repeats))
        else:
            results = sweep.run(workloads)
    _print(results, output, as_json=as_json, quiet=quiet)
    if results[-1].status == "interrupted":
        ctx.exit(130)
    if failed := [result for result in results if result.status == "failed"]:
        which = (
            f"the run of {failed[0].workload.concurrency} at a time" if results[1:] else "the run"
        )
        raise NemotrtError(f"{which} failed: {failed[0].reason} The rest is in {output}.")


def _check(
    target: str, load: LoadChoice, sweep: SweepOptions, run: RunOptions, *, force: bool
) -> None:
    """Raise ConfigError for options that don't go together."""
    if sweep.search and (load.trace or load.requests_per_s):
        raise ConfigError("--search looks for a concurrency: leave out --trace and --request-rate.")
    if sweep.within_percent is not None and sweep.repeat < MIN_REPEATS:
        raise ConfigError(
            f"--within needs --repeat {MIN_REPEATS} or more, the most runs of a load."
        )
    if run.facts and not is_address(target):
        raise ConfigError("--fact is for a server: an engine directory says what it has.")
    if run.hardware_from and (not is_address(target) or "hardware" in run.facts):
        raise ConfigError("--hardware-from is for a server whose --fact hardware is not given.")
    if sweep.resume and force:
        raise ConfigError("--resume keeps runs and --force replaces them: give one of the two.")


def _engine_of(target: str, *, rebuild: bool) -> str:
    """Return the target; in the place of a checkpoint its engine."""
    if is_address(target):
        if rebuild:
            raise ConfigError(f"--rebuild is for checkpoints; {target} is a server.")
        return target
    return str(engine_folder(target, rebuild=rebuild))


def _drive(options: RunOptions) -> "Drive":
    """Return the load driver that was chosen; raises EnvironmentUnfitError if it is missing."""
    if options.driver is Driver.AIPERF:
        from nemotrt.profiles.runs.aiperf.drive import aiperf_driver

        return aiperf_driver(options.aiperf)
    from nemotrt.profiles.load.driver import drive

    return drive


def _prediction(target: str, options: RunOptions) -> "DeploymentOptions | None":
    """Return what the planner is asked for."""
    from nemotrt.profiles.planning.answers.options import DeploymentOptions

    if not options.predict:
        return None
    return DeploymentOptions(
        options.predict_model or target,
        options.predict,
        options.predict_precision or options.precision,
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
