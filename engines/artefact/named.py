"""Which engine a name means: an engine directory, or one that is built of a checkpoint.

What builds lies above: the root command hands it down as click's `obj`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from nemotrt.engines.checkpoint.hub.parameter import CheckpointType
from nemotrt.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., object])
EngineMaker = Callable[[str, bool], Path]  # of a checkpoint's name, and whether to build it anew


class EngineType(CheckpointType):
    """The name of an engine directory, or of a checkpoint; what means nothing is refused at once.

    Nothing is built, nor downloaded, before the command runs.
    """

    name = "engine"
    wanted = "an engine directory"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as it was given."""
        if _has(value, "engine.json"):
            return value
        try:
            return super().convert(value, param, ctx)
        except ConfigError as error:
            why = error.message.removeprefix("checkpoint ")
            raise ConfigError(
                f"{value!r} is not {self.wanted}, and no checkpoint to build an engine of: {why}"
            ) from None


class TargetType(EngineType):
    """The address of a server, or the name of an engine."""

    name = "target"
    wanted = "the URL of a server like http://127.0.0.1:8000, not an engine directory"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the address or the name as it was given."""
        return value if is_address(value) else super().convert(value, param, ctx)


ENGINE, TARGET = EngineType(), TargetType()


def rebuild_option(command: Command) -> Command:
    """Add --rebuild, as `rebuild`."""
    return click.option(
        "--rebuild",
        is_flag=True,
        help="Build the engine of a checkpoint anew, where the cache has one.",
    )(command)


def is_address(name: str) -> bool:
    """Whether a target's name is a server's address."""
    return "://" in name


def engine_folder(name: str, *, rebuild: bool = False, make: EngineMaker | None = None) -> Path:
    """Return the engine directory that `name` means; of a checkpoint one is built into the cache.

    With a command's --dry-run nothing is built: it says what would be, and the command ends.

    Args:
        name: an engine directory, or a checkpoint.
        rebuild: build the engine of a checkpoint anew.
        make: builds it; default as the command that runs has it.

    Raises:
        ConfigError: `rebuild` is asked of an engine.
        NemotrtError: the checkpoint can't be had, or no engine be built of it.
    """
    is_folder = Path(name).is_dir() and not _has(name, "snapshots")
    is_engine = _has(name, "engine.json") or (is_folder and not _has(name, "config.json"))
    if is_engine and rebuild:
        raise ConfigError(f"--rebuild is for checkpoints; {name} is an engine: see nemotrt build.")
    if is_engine:
        return Path(name)
    maker: EngineMaker = make or click.get_current_context().find_root().obj
    return maker(name, rebuild)


def _has(folder: str, name: str) -> bool:
    return (Path(folder) / name).exists()
