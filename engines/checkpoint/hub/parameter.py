"""A checkpoint on the command line: the one type of every such parameter, and --offline."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from nemotrt.engines.checkpoint.hub.cache import OFFLINE
from nemotrt.engines.checkpoint.hub.hub_id import parse_hub_id

Command = TypeVar("Command", bound=Callable[..., Any])


class CheckpointType(click.ParamType[str]):
    """A name that `checkpoint_folder` resolves; a name that means nothing is refused at once.

    Nothing is downloaded before the command runs, which may find another fault first.
    """

    name = "checkpoint"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as it was given."""
        from nemotrt.engines.checkpoint.hub.folder import meaning
        from nemotrt.engines.checkpoint.hub.parts import Part

        meaning(value, Part.CONFIG)
        return value


class ModelType(CheckpointType):
    """The name of a checkpoint, or what else the planner knows a model by."""

    name = "model"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as it was given; what is no hub id is the planner's to judge."""
        parse_hub_id(value)
        return value


CHECKPOINT = CheckpointType()
MODEL = ModelType()


def offline_option(command: Command) -> Command:
    """Add --offline, which is HF_HUB_OFFLINE=1 for this command and what it starts."""
    return click.option(
        "--offline",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_go_offline,
        help="Take hub ids from the local cache alone, as with HF_HUB_OFFLINE=1.",
    )(command)


def _go_offline(ctx: click.Context, _: click.Parameter, is_asked: bool) -> None:
    """Forbid the network until the command ends."""
    if not is_asked:
        return
    before = os.environ.get(OFFLINE)
    os.environ[OFFLINE] = "1"

    @ctx.call_on_close
    def restore() -> None:
        if before is None:
            os.environ.pop(OFFLINE, None)
        else:
            os.environ[OFFLINE] = before
