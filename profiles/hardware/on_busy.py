"""What to do about a busy machine, as an option of the command line; nothing heavy is imported."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import click

from nemotrt.commandline.kinds import choices


class OnBusy(StrEnum):
    """What to do about a busy machine."""

    TELL = "tell"
    REPEAT = "repeat"  # measure again, MAX_REPEATS times at most, and keep the quietest
    REFUSE = "refuse"  # look before, and take no measurement that was disturbed


def on_busy_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--on-busy`."""
    return click.option(
        "--on-busy",
        type=choices(list(OnBusy)),
        default=OnBusy.TELL.value,
        show_default=True,
        help="If other work disturbs the run: say so, measure again up to twice, or give up.",
    )(command)
