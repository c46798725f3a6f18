"""`nemotrt check`."""

import sys
from pathlib import Path

import click

from nemotrt.commandline import (
    FILE,
    force_option,
    json_option,
    output_option,
    quiet_option,
)
from nemotrt.progress import stage_printer

DESCRIPTION = """Say whether this machine computes right.

With --kernels: our CUDA kernels on the GPU that is here, compared with the CPU and timed beside a
copy within the device. It needs a GPU of compute capability 8.0 or later, its driver, cuda-python,
and NVRTC or nvcc; no TensorRT and no checkpoint. It ends in minutes, whatever the GPU.

Exit code 0: all holds. 1: something computes wrong; the report file is to be sent to the
maintainers. 3: this machine lacks something, which is named.

\b
Examples:
  nemotrt check --kernels
  nemotrt check --kernels -o page.html
"""
TO_SEND = "Please send {} to the maintainers of nemotrt, in an issue of the project."


@click.command(help=DESCRIPTION)
@click.option("--kernels", is_flag=True, required=True, help="Check our CUDA kernels alone.")
@output_option("A page of the results (.html).", FILE)
@force_option
@quiet_option
@json_option
def check(kernels: bool, output: Path | None, force: bool, quiet: bool, as_json: bool) -> None:
    """Run the checks, print what holds, and end with the report's exit code."""
    from nemotrt.build.check.kernels.check import check_kernels
    from nemotrt.build.check.result.page import render
    from nemotrt.build.check.result.report import lines, new_report, see_gpu, write_report
    from nemotrt.files.writing import check_file, write_file

    if output is not None:
        check_file(output, force=force)
    with stage_printer(quiet or as_json) as report_stage:
        kernel_check = check_kernels(report_stage)
    found = new_report(see_gpu(kernel_check.uuid), kernel_check)
    if output is not None:
        write_file(output, render(found), force=force)
    if as_json:
        click.echo(found.to_json())
    else:
        click.echo("\n".join(lines(found)))
    for fault in found.faults:
        click.echo(str(fault), err=True)
    if found.exit_code == 1:
        click.echo(TO_SEND.format(write_report(found)), err=True)
    sys.exit(found.exit_code)
