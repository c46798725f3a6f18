"""`nemotrt profile`: parse, call, print."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotrt.commandline import (
    ABOVE_0,
    COUNT,
    PATH,
    DefaultGroup,
    config_option,
    dry_run_option,
    engine_options,
    force_option,
    json_option,
    output_option,
    quiet_option,
)
from nemotrt.engines.model.numerics import BUILT
from nemotrt.errors import ConfigError, NemotrtError
from nemotrt.profiles.engine_step.command import engine
from nemotrt.profiles.miniature.command import miniature
from nemotrt.profiles.verdict.command import compare

if TYPE_CHECKING:
    from collections.abc import Callable

    from nemotrt.profiles.hardware.nvml.gpu_trace import GpuFacts, GpuSample
    from nemotrt.profiles.load.driver import Drive
    from nemotrt.profiles.load.target import Target
    from nemotrt.profiles.load.workload import Workload
    from nemotrt.profiles.runs.measure import Observers, Progress
    from nemotrt.profiles.runs.record.result import ProfileResult

PRECISION = click.Choice([item.value for item in BUILT])


@click.group(cls=DefaultGroup, subcommand_metavar="TARGET [OPTIONS] | COMMAND ...")
def profile() -> None:
    """Measure TARGET: an engine directory, or a server's address.

    `nemotrt profile TARGET` is short for `nemotrt profile run TARGET`, whose --help has the
    options.
    """


@profile.command("run")
@click.argument("target")
@output_option("Folder of the results.", default=Path("profile"))
@click.option("--preset", help="8k16k, 1k8k, 32k1k, 128k or smoke: lengths and requests.")
@click.option("--isl", type=COUNT, help="Prompt tokens.  [default: 256]")
@click.option("--osl", type=COUNT, help="Answer tokens.  [default: 64]")
@click.option("-c", "--concurrency", default="1", show_default=True, help="Users: 8, or 1,4,16.")
@click.option(
    "--search", is_flag=True, help="Find the best concurrency: 1, 2, 4, ..., then between."
)
@click.option("--repeat", type=COUNT, default=1, help="Runs of the same load.")
@click.option("-n", "--num-requests", type=COUNT, help="Measured.  [default: 8 a user]")
@click.option("--warmup", type=click.IntRange(0), help="Requests before.  [default: 1 a user]")
@click.option("--request-rate", type=ABOVE_0, help="Open loop, per s.")
@click.option("--evenly-paced", is_flag=True, help="Fixed gaps in an open loop, not Poisson's.")
@click.option("--trace", type=PATH, help="JSONL: timestamp (ms), input_length, output_length.")
@click.option("--trace-speedup", type=ABOVE_0, default=1.0)
@click.option("--slo", multiple=True, help="Limit for goodput: ttft_ms:500; may be repeated.")
@click.option("--language", type=click.Choice(["en", "ja", "mixed"]), default="mixed")
@click.option("--seed", type=int, help="Of prompts and arrivals.  [default: a new one]")
@click.option("--protocol", type=click.Choice(["triton", "openai", "openai-chat"]))
@click.option("--model", default="llm", show_default=True, help="The model's name on a server.")
@click.option("--tokenizer", help="Folder with the model's tokenizer; a server needs it.")
@click.option("--header", multiple=True, help="NAME=VALUE of every HTTP request.")
@click.option("--extra", multiple=True, help="NAME=VALUE in every request; null takes one away.")
@click.option("--threads", type=COUNT, help="CPU threads of an engine directory.")
@engine_options
@click.option("--stall-timeout-s", type=click.FloatRange(0.1), default=300.0, show_default=True)
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
@click.option("--predict-model", help="Known name or folder.  [default: the engine directory]")
@click.option(
    "--predict-precision", type=PRECISION, help="[default: the target's, else the model's]"
)
@click.option(
    "--precision",
    type=PRECISION,
    help="What a server runs in, where it does not say: bf16, fp8, ...",
)
@click.option("--gpu", multiple=True, help="Watch it: index, INDEX:MIG, UUID.  [default: all]")
@click.option("--no-gpu", is_flag=True, help="Watch no GPU.")
@click.option("--gpu-rate-hz", type=click.FloatRange(0.1, 100), default=10.0, show_default=True)
@force_option
@dry_run_option
@json_option
@quiet_option
@config_option
@click.pass_context
def run(ctx: click.Context, /, target: str, output: Path, **options: Any) -> None:
    """Measure TARGET and write result.json (every sample) and report.html (one page).

    TARGET is an engine directory, a Triton server (http://127.0.0.1:8000 or
    grpc://127.0.0.1:8001), or an OpenAI-compatible one (http://127.0.0.1:8080/v1).
    """
    from nemotrt.profiles.load.choice.choice import Choice, choose, parse_concurrencies
    from nemotrt.profiles.load.targets.opening import (
        Protocol,
        TargetOptions,
        open_target,
        parse_extra,
    )
    from nemotrt.profiles.runs.progress import live_progress
    from nemotrt.profiles.runs.sweep import search, sweep

    choice = Choice(
        preset=options["preset"],
        isl=options["isl"],
        osl=options["osl"],
        num_requests=options["num_requests"],
        num_warmup=options["warmup"],
        requests_per_s=options["request_rate"],
        is_evenly_paced=options["evenly_paced"],
        trace=options["trace"],
        trace_speedup=options["trace_speedup"],
        language=options["language"],
        seed=options["seed"],
        slos=options["slo"],
    )
    if options["search"] and (options["trace"] or options["request_rate"]):
        raise ConfigError("--search looks for a concurrency: leave out --trace and --request-rate.")
    num_repeats = options["repeat"]
    workloads = choose(choice, parse_concurrencies(options["concurrency"]), num_repeats)
    reach = TargetOptions(
        protocol=Protocol(options["protocol"]) if options["protocol"] else None,
        model=options["model"],
        tokenizer=options["tokenizer"],
        num_threads=options["threads"],
        checkpoint=options["checkpoint"],
        verify=options["verify"],
        stall_timeout_s=options["stall_timeout_s"],
        headers={name: str(value) for name, value in parse_extra(options["header"]).items()},
        extra=parse_extra(options["extra"]),
    )
    if options["dry_run"]:
        for workload in workloads:
            click.echo(workload)
        return
    is_silent = options["quiet"] or options["as_json"]
    drive = _drive(options)

    def make_target(workload: "Workload") -> "Target":
        return open_target(target, workload, reach)

    force = options["force"]
    with live_progress(quiet=is_silent) as show:
        watchers = _observers(target, options, show)
        if options["search"]:
            at = lambda concurrency: choose(choice, (concurrency,), num_repeats)  # noqa: E731
            results = search(make_target, at, output, force=force, watchers=watchers, drive=drive)
        else:
            results = sweep(
                make_target, workloads, output, force=force, watchers=watchers, drive=drive
            )
    _print(results, output, as_json=options["as_json"], quiet=options["quiet"])
    if results[-1].status == "interrupted":
        ctx.exit(130)
    if results[-1].status == "failed":
        raise NemotrtError(f"the run failed: {results[-1].reason} The rest is in {output}.")


def _drive(options: dict[str, Any]) -> "Drive":
    """Return the load driver that was chosen; raises EnvironmentUnfitError if it is missing."""
    if options["driver"] == "aiperf":
        from nemotrt.profiles.runs.aiperf.drive import aiperf_driver

        return aiperf_driver(options["aiperf"])
    from nemotrt.profiles.load.driver import drive

    return drive


def _observers(
    target: str, options: dict[str, Any], show: "Callable[[Progress], None] | None"
) -> "Observers":
    """Return who watches the run, by the flags."""
    from nemotrt.profiles.hardware.nvml.watch import GpuChoice
    from nemotrt.profiles.runs.measure import Observers
    from nemotrt.profiles.runs.record.prediction import PredictionChoice

    prediction = None
    if options["predict"]:
        model = options["predict_model"] or target
        precision = options["predict_precision"] or options["precision"]
        prediction = PredictionChoice(options["predict"], model, precision)
    return Observers(
        on_progress=show,
        gpus=None if options["no_gpu"] else GpuChoice(options["gpu"], options["gpu_rate_hz"]),
        metrics_url=options["metrics_url"] or "",
        prediction=prediction,
        facts={"precision": options["precision"]} if options["precision"] else {},
    )


@profile.command("gpu")
@output_option("File of the samples.", default=Path("gpu.csv"))
@click.option("--gpu", multiple=True, help="Index, INDEX:MIG or UUID.  [default: all]")
@click.option("--rate-hz", type=click.FloatRange(0.1, 100), default=10.0, show_default=True)
@click.option("--duration-s", type=click.FloatRange(0.1), help="[default: until Ctrl-C]")
@force_option
@quiet_option
@config_option
def gpu(
    output: Path,
    gpu: tuple[str, ...],
    rate_hz: float,
    duration_s: float | None,
    force: bool,
    quiet: bool,
) -> None:
    """Record the GPUs on their own to OUTPUT: .csv, .json (with the GPUs' facts) or .parquet."""
    from nemotrt.profiles.hardware.nvml.session import record
    from nemotrt.profiles.hardware.nvml.table import check_table
    from nemotrt.profiles.hardware.nvml.watch import GpuChoice
    from nemotrt.profiles.reports.summary import sample_line

    check_table(output, force=force)

    def show(samples: "list[tuple[GpuFacts, GpuSample]]") -> None:
        for facts, sample in [] if quiet else samples:
            click.echo(sample_line(facts, sample), err=True)

    choice = GpuChoice(gpu, rate_hz)
    traces = record(choice, output, duration_s, show, lambda text: click.echo(text, err=True))
    for trace in traces:
        name = trace.facts.name or "(name not told)"
        click.echo(
            f"GPU {trace.facts.index} {name}: {len(trace.samples)} samples, "
            f"{trace.num_missed} missed, sampler used {trace.sampler_cpu_share:.1%} of a core"
            + (f"; {trace.lost}" if trace.lost else "")
        )


@profile.command("report")
@click.argument("runs", nargs=-1, required=True, type=PATH)
@output_option("HTML file.  [default: in the run's folder]")
def report(runs: tuple[Path, ...], output: Path | None) -> None:
    """Rebuild the page of one run or sweep, or set several side by side.

    RUNS are folders of runs or sweeps, a killed run's .partial folder, or results of AIPerf and
    `vllm bench serve`.
    """
    from nemotrt.profiles.reports.comparison import write_comparison
    from nemotrt.profiles.reports.page import write_html
    from nemotrt.profiles.runs.run_folder import REPORT_FILE, read_runs

    results = [result for path in runs for result in read_runs(path)]
    if len(runs) == 1:
        output = output or (runs[0] if runs[0].is_dir() else runs[0].parent) / REPORT_FILE
    output = output or Path(REPORT_FILE)
    if len(results) == 1:
        write_html(results[0], output)
    else:
        write_comparison(results, output)
    click.echo(output)


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


profile.add_command(compare)
profile.add_command(engine)
profile.add_command(miniature)
