"""The options of `nemotrt build` that only some backends have, read from the backends' Options."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from nemotrt.commandline.options import Told, click_option, told_fields
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.backend import AnyBackend
from nemotrt.errors import ConfigError

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, slots=True)
class BackendOption:
    """An option that the other backends refuse: a field of the Options of `backends`.

    Backends that share one say the same of it.
    """

    item: dataclasses.Field[Any]
    told: Told
    backends: tuple[str, ...]

    @property
    def flag(self) -> str:
        """The option as it is spelled."""
        return self.told.names[0]

    @property
    def field(self) -> str:
        """The field's name."""
        return self.item.name


def backend_options() -> tuple[BackendOption, ...]:
    """Return every such option, in the order of the backends."""
    found: dict[str, BackendOption] = {}
    for backend in registry.backends():
        for item, told in told_fields(backend.options_type):
            before = found.get(item.name, BackendOption(item, told, ()))
            names = (*before.backends, backend.name)
            found[item.name] = dataclasses.replace(before, backends=names)
    return tuple(found.values())


def with_backend_options(command: Command) -> Command:
    """Return the command with every such option, for use as a decorator."""
    for option in reversed(backend_options()):
        text = f"{', '.join(option.backends)}: {option.told.help}"
        told = dataclasses.replace(option.told, help=text)
        command = click_option(option.item, told)(command)
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
    defaults = {option.field: option.item.default for option in backend_options()}
    return defaults | dataclasses.asdict(options)


def default_backend(gpu: str | None, given: Collection[str] = ()) -> tuple[str, str]:
    """Return (backend, a note for the user or ""): tensorrt for a GPU, else the fastest here.

    Among the flags that are `given`, one that is a CPU backend's alone decides for it.
    """
    if gpu is not None:
        return registry.first_for_gpu(), ""
    for option in backend_options():
        if option.flag in given and set(option.backends) <= set(registry.cpu_names()):
            return option.backends[0], ""
    backend, reason = registry.default_cpu_backend()
    return backend, f"building for {backend}: {reason}" if reason else ""
