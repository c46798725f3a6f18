"""The options of `nemotrt build` that only some backends have, read from the backends' Options."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import Any, TypeVar

import click

from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.backend import AnyBackend
from nemotrt.engines.backends.protocol.options import FLAG, Flag
from nemotrt.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, slots=True)
class BackendOption:
    """An option that the other backends refuse; `field` is its name in the Options of `backends`.

    `decides` and `scale` are the flag's.
    """

    flag: str
    field: str
    backends: tuple[str, ...]
    help: str
    default: Any
    decides: bool
    scale: int

    def value(self, given: Any) -> Any:
        """Return the field's value for the value that the command line gives."""
        if given is None:
            return self.default
        return int(given * self.scale) if self.scale != 1 else type(self.default)(given)

    def click_option(self) -> Callable[[Command], Command]:
        """Return the option of the command line."""
        text = f"{', '.join(self.backends)}: {self.help}"
        if isinstance(self.default, bool):
            return click.option(self.flag, self.field, is_flag=True, help=text)
        if self.scale != 1:
            number = click.FloatRange(0, min_open=True)
            return click.option(self.flag, self.field, type=number, help=text)
        kind: click.IntRange | click.Choice[str] = click.IntRange(1)
        default = self.default
        if isinstance(default, StrEnum):
            kind, default = click.Choice([item.value for item in type(default)]), default.value
        return click.option(
            self.flag, self.field, type=kind, default=default, show_default=True, help=text
        )


def backend_options() -> tuple[BackendOption, ...]:
    """Return every such option, in the order of the backends."""
    found: dict[str, BackendOption] = {}
    for backend in registry.backends():
        for field in dataclasses.fields(backend.options_type):
            flag: Flag = field.metadata[FLAG]
            before = found[flag.name].backends if flag.name in found else ()
            found[flag.name] = BackendOption(
                flag.name,
                field.name,
                (*before, backend.name),
                flag.help,
                field.default,
                flag.decides,
                flag.scale,
            )
    return tuple(found.values())


def with_backend_options(command: Command) -> Command:
    """Return the command with every such option, for use as a decorator."""
    for option in reversed(backend_options()):
        command = option.click_option()(command)
    return command


def check_options(backend: str, given: Collection[str]) -> None:
    """Raise ConfigError if `backend` lacks one of the `given` flags; others are not looked at."""
    foreign = [
        f"{option.flag} is for backend {' and '.join(option.backends)}"
        for option in backend_options()
        if option.flag in given and backend not in option.backends
    ]
    if foreign:
        raise ConfigError(f"{'; '.join(foreign)}, not {backend}.")


def options_of(backend: AnyBackend, given: Mapping[str, Any]) -> Any:
    """Return a backend's Options from the command line's values by field; others are ignored."""
    return backend.options_type(
        **{
            option.field: option.value(given[option.field])
            for option in backend_options()
            if backend.name in option.backends
        }
    )


def checked_options(backend: AnyBackend, options: Any) -> Any:
    """Return the options as the backend's own; None stands for its defaults.

    Raises:
        ConfigError: they are another backend's; the message names what is chosen in them.
    """
    if options is None:
        return backend.options_type()
    if isinstance(options, backend.options_type):
        return options
    flags = {option.field: option.flag for option in backend_options()}
    chosen = [
        flags[field.name]
        for field in dataclasses.fields(options)
        if field.name in flags and getattr(options, field.name) != field.default
    ]
    check_options(backend.name, chosen)
    raise ConfigError(
        f"backend {backend.name} has {backend.options_type.__name__}, not {type(options).__name__}."
    )


def option_values(options: Any) -> dict[str, Any]:
    """Return every option's value by field: what is chosen, and the defaults of the others."""
    defaults = {option.field: option.default for option in backend_options()}
    return defaults | dataclasses.asdict(options)
