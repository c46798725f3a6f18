"""The options of every command that opens an engine; nothing heavy is imported."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from nemotrt.commandline import click_option, option, told_fields
from nemotrt.engines.checkpoint.hub.parameter import CHECKPOINT

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class WeightOptions:
    """Where the weights of an engine are, and whether all of them are read."""

    checkpoint: str | None = option(
        None,
        "Where the weights of ENGINE are, if they stay in a checkpoint; or $NEMOTRT_CHECKPOINT.",
        kind=CHECKPOINT,
        metavar="CHECKPOINT",
        unset="where they were at its build",
    )
    verify: bool = option(
        False, "Read every byte of ENGINE and its weights, also what was verified before."
    )


(checkpoint_option, verify_option) = (click_option(*told) for told in told_fields(WeightOptions))


def engine_options(command: Command) -> Command:
    """Add what every command that opens an engine takes, as `checkpoint` and `verify`."""
    return checkpoint_option(verify_option(command))
