"""`nemotrt profile`: its subcommands."""

import click

from nemotrt.commandline.default_group import DefaultGroup
from nemotrt.profiles.engine_step.command import engine
from nemotrt.profiles.gpu_command import gpu
from nemotrt.profiles.miniature.command import miniature
from nemotrt.profiles.report_command import report
from nemotrt.profiles.runs.command import run
from nemotrt.profiles.verdict.command import compare


@click.group(cls=DefaultGroup, subcommand_metavar="TARGET [OPTIONS] | COMMAND ...")
def profile() -> None:
    """Measure TARGET: an engine directory, a checkpoint, or a server's address.

    `nemotrt profile TARGET` is short for `nemotrt profile run TARGET`, whose --help has the
    options.
    """


for command in (run, compare, engine, gpu, miniature, report):
    profile.add_command(command)
