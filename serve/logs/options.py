"""What a server's processes log, how, and how much of it is kept."""

from dataclasses import dataclass, replace
from enum import StrEnum

import click

from nemotrt.commandline.kinds import ABOVE_0
from nemotrt.commandline.options import option
from nemotrt.errors import ConfigError

MIB = 1 << 20


class LogFormat(StrEnum):
    """What a line is."""

    HUMAN = "human"
    JSON = "json"


class LogLevel(StrEnum):
    """The least that is logged."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    DEBUG = "debug"
    ALL = "all"

    @property
    def name_of_least(self) -> str:
        """What `logging` calls the least that is logged."""
        return "DEBUG" if self is LogLevel.ALL else self.upper()


VERBOSE = {1: LogLevel.DEBUG, 2: LogLevel.ALL}


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What every process is told."""

    log_level: LogLevel = option(
        LogLevel.INFO, "The least that is logged; `all` is `debug` of the libraries too."
    )
    log_format: LogFormat = option(
        LogFormat.HUMAN, "How lines are written; json is one object per line."
    )


@dataclass(frozen=True, slots=True)
class LogFiles:
    """How much of each process's log is kept."""

    log_max_mib: float = option(
        16.0, "MiB at which a process's log is put aside for a new one.", kind=ABOVE_0
    )
    log_files: int = option(3, "Older logs of each process that are kept.", kind=click.IntRange(0))

    @property
    def max_bytes(self) -> int:
        """The size in bytes."""
        return int(self.log_max_mib * MIB)


verbose_option = click.option(
    "-v", "--verbose", count=True, help="-v is --log-level debug, -vv --log-level all."
)


def with_verbose(options: LogOptions, verbose: int) -> LogOptions:
    """Return the options with the level that so many -v say.

    Raises:
        ConfigError: there are two levels, or too many -v.
    """
    if not verbose:
        return options
    if verbose not in VERBOSE:
        raise ConfigError(f"-v is given {verbose} times; twice says everything.")
    if options.log_level is not LogLevel.INFO:
        raise ConfigError("give -v or --log-level, not both.")
    return replace(options, log_level=VERBOSE[verbose])
