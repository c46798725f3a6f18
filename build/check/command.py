"""`nemotrt check`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotrt.commandline.kinds import FILE, PATH
from nemotrt.commandline.shared import (
    config_option,
    force_option,
    json_option,
    output_option,
    quiet_option,
)
from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions, weight_options
from nemotrt.engines.checkpoint.hub.parameter import offline_option
from nemotrt.errors import ConfigError
from nemotrt.progress import stage_printer

if TYPE_CHECKING:
    from nemotrt.build.check.result.report import CheckReport

DESCRIPTION = """Check whether this machine computes correctly.

With ENGINE it opens the engine, feeds it short prompts in chunks and single tokens of several
sequences that come and go, and compares its logits with an independent computation of the same
weights on the CPU: another engine, or layer by layer where memory is short. What passes is written
beside the engine (executed.json).

With --kernels it runs our CUDA kernels on the GPU that is here, compares them with the CPU, and
times them beside a copy within the device. It needs a GPU of compute capability 8.0 or later, its
driver, cuda-python, and NVRTC or nvcc. It needs no TensorRT and no checkpoint.

With neither it builds the tiny model for what is here and checks it, and checks the kernels if
there is a GPU.

Exit code 0: everything is correct. 1: a result is wrong; send the report file to the maintainers.
2: nothing was tried, for a reason that is named, such as a missing or changed checkpoint; this says
nothing of the machine. 3: the machine lacks something, which is named.

\b
Examples:
  nemotrt check
  nemotrt check engine-a10g -o check.html
  nemotrt check --kernels
"""


@click.command(help=DESCRIPTION)
@click.argument("engine", type=PATH, required=False)
@click.option("--kernels", is_flag=True, help="Check our CUDA kernels.")
@click.option("--layers", is_flag=True, help="Compare ENGINE layer by layer in any case.")
@output_option("A page of the results (.html).", FILE)
@weight_options
@force_option
@quiet_option
@json_option
@offline_option
@config_option
def check(
    engine: Path | None,
    kernels: bool,
    layers: bool,
    output: Path | None,
    open_options: OpenOptions,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run the checks, print what holds, and end with the report's exit code."""
    from nemotrt.build.check.result.page import render
    from nemotrt.build.check.result.report import lines, to_send
    from nemotrt.files.writing import check_file, write_file

    if engine is None and (layers or open_options != AS_BUILT):
        raise ConfigError("--layers, --checkpoint and --verify are for an ENGINE.")
    if output is not None:
        check_file(output, force=force)
    with stage_printer(quiet or as_json) as stage_of:
        found = run_checks(engine, kernels, layers, stage_of, open_options)
    if output is not None:
        write_file(output, render(found), force=force)
    click.echo(found.to_json() if as_json else "\n".join(lines(found)))
    for fault in found.faults:
        click.echo(str(fault), err=True)
    if engine is not None:
        from nemotrt.build.check.engine.record import record

        if note := record(engine, found.engines[0], found):
            click.echo(note, err=True)
    if found.is_for_maintainers():
        click.echo(to_send(found), err=True)
    sys.exit(found.exit_code)


def run_checks(
    engine: Path | None,
    kernels: bool,
    layers: bool,
    report: Callable[[str], None],
    options: OpenOptions = AS_BUILT,
) -> "CheckReport":
    """Return the report of what was asked for."""
    from nemotrt.build.check.kernels.check import check_kernels, gpu_identity
    from nemotrt.build.check.result.engine_check import EngineCheck
    from nemotrt.build.check.result.report import Predicted, new_report, see_gpu
    from nemotrt.build.check.result.rows import KernelCheck
    from nemotrt.build.check.time_limit import in_time

    checked: list[EngineCheck] = []
    predicted: list[Predicted] = []
    if engine is not None:
        from nemotrt.build.check.engine.check import check_engine

        checked = [check_engine(engine, report, options, is_by_layers=layers)]
    elif not kernels:
        from nemotrt.build.check.machine import check_machine, has_gpu

        checked, predicted = check_machine(report)
        kernels = has_gpu()
    found = KernelCheck() if kernels else None
    if found is not None:
        with in_time(found, report) as tell:
            check_kernels(found, tell)
    has_gpu_engine = any(each.gpu is not None and each.comparison for each in checked)
    identity = gpu_identity() if found or has_gpu_engine else None
    return new_report(see_gpu(identity), found, checked, predicted)
