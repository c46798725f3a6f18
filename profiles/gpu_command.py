"""`nemotrt profile gpu`: parse, call, print."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from nemotrt.commandline.kinds import FloatRange
from nemotrt.commandline.options import options_of
from nemotrt.commandline.shared import (
    config_option,
    dry_run_option,
    force_option,
    output_option,
    quiet_option,
)
from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.gpu_choice import GpuChoice

if TYPE_CHECKING:
    from nemotrt.profiles.hardware.nvml.gpu_trace import GpuFacts, GpuSample


@click.command("gpu")
@output_option("File of the samples.", default=Path("gpu.csv"))
@options_of(GpuChoice)
@click.option(
    "--duration-s", type=FloatRange(0.1), help="Seconds to record.  [default: until Ctrl-C]"
)
@click.option(
    "--serve",
    metavar="[HOST:]PORT",
    help="Serve Prometheus metrics there instead, asked of NVML at each scrape.",
)
@force_option
@dry_run_option
@quiet_option
@config_option
@click.pass_context
def gpu(
    ctx: click.Context,
    /,
    output: Path,
    gpu_choice: GpuChoice,
    duration_s: float | None,
    serve: str | None,
    force: bool,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Record the GPUs on their own to OUTPUT: .csv, .json (with the GPUs' facts) or .parquet.

    With --serve nothing is recorded: Prometheus asks, beside any server on this machine.
    """
    if serve is not None:
        _export(ctx, serve, gpu_choice, duration_s, dry_run=dry_run)
        return
    from nemotrt.profiles.hardware.nvml.session import record
    from nemotrt.profiles.hardware.nvml.table import check_table
    from nemotrt.profiles.reports.summary import sample_line

    check_table(output, force=force)
    if dry_run:
        click.echo(f"would record to {output}", err=True)
        return

    def show(samples: "list[tuple[GpuFacts, GpuSample]]") -> None:
        for facts, sample in [] if quiet else samples:
            click.echo(sample_line(facts, sample), err=True)

    warn = partial(click.echo, err=True)
    traces = record(gpu_choice, output, duration_s, show, warn)
    for trace in traces:
        name = trace.facts.name or "(name not told)"
        click.echo(
            f"GPU {trace.facts.index} {name}: {len(trace.samples)} samples, "
            f"{trace.num_missed} missed, sampler used {trace.sampler_cpu_share:.1%} of a core"
            + (f"; {trace.lost}" if trace.lost else "")
        )


def _export(
    ctx: click.Context,
    serve: str,
    gpu_choice: GpuChoice,
    duration_s: float | None,
    *,
    dry_run: bool,
) -> None:
    """Serve the GPUs' figures; raises ConfigError for an option that has no effect on that."""
    from nemotrt.profiles.hardware.exporter.gpu_exporter import export, parse_address

    given = {
        param.name: max(param.opts, key=len)
        for param in ctx.command.params
        if param.name and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    }
    for name in given.keys() & {"output", "rate_hz", "force", "quiet"}:
        raise ConfigError(f"{given[name]} is for a recording: leave it out, or --serve.")
    address = parse_address(serve)
    if dry_run:
        click.echo(f"would serve metrics at {address[0]}:{address[1]}", err=True)
        return
    export(gpu_choice.names, address, duration_s, partial(click.echo, err=True))
