"""Adapters that an engine runs beside its weights, by name: `--lora NAME=DIR`, `--adapter NAME`."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from nemotrt.errors import ConfigError, unknown_name

Command = TypeVar("Command", bound=Callable[..., Any])
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class NamedAdapter:
    """A folder with an adapter, and what requests call it."""

    name: str
    path: Path

    def __post_init__(self) -> None:
        """Check the name, which is part of a model's name in requests."""
        if not NAME.fullmatch(self.name):
            raise ConfigError(
                f"adapter name {self.name!r} must begin with a letter or digit; it may have ASCII "
                "letters, digits, '-', '_' and '.'."
            )

    def __str__(self) -> str:
        """Return it as a user writes it."""
        return f"{self.name}={self.path}"


class NamedAdapterType(click.ParamType[NamedAdapter]):
    """NAME=DIR."""

    name = "adapter"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> NamedAdapter:
        """Return the adapter."""
        if isinstance(value, NamedAdapter):
            return value
        name, is_named, path = str(value).partition("=")
        if not (is_named and path):
            self.fail(f"{value!r} is not of the form NAME=DIR.", param, ctx)
        return NamedAdapter(name, Path(path))


def adapter_option(command: Command) -> Command:
    """Add --adapter, as `adapter`."""
    told = "Which of the adapters of --lora answers.  [default: the only one]"
    return click.option("--adapter", metavar="NAME", help=told)(command)


def check_names(adapters: Sequence[NamedAdapter]) -> None:
    """Raise ConfigError where two adapters have one name."""
    names = [adapter.name for adapter in adapters]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"two adapters are called {twice}; give each a name of its own.")


def chosen_adapter(adapters: Sequence[NamedAdapter], name: str | None) -> str:
    """Return the adapter that a command's text has, "" for none.

    Without a `name` it is the only one; of several one must be named.

    Raises:
        ConfigError: there is none of that name, or several and no name.
    """
    names = [adapter.name for adapter in adapters]
    if name is not None and not names:
        raise ConfigError(f"unknown adapter {name!r}: give its folder, --lora {name}=DIR.")
    if name is not None and name not in names:
        raise unknown_name("adapter", name, names)
    if name is None and len(names) > 1:
        raise ConfigError(f"there are several adapters: choose by --adapter {' or '.join(names)}.")
    return name or next(iter(names), "")
