"""`--config FILE`: a command's options from YAML; what is on the command line comes first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nemotrt.errors import ArtefactError, ConfigError, unknown_name
from nemotrt.files.text_file import read_yaml

Command = TypeVar("Command", bound=Callable[..., Any])
NOT_SETTINGS = ("config", "help", "list-recipes")


def config_option() -> Callable[[Command], Command]:
    """Return the decorator that adds --config to a command: its keys are the options' names."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_load,
        metavar="FILE",
        help="YAML with these options, such as `kv-cache: fp8`; flags override it.",
    )


def _load(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Make the file's values the defaults of this call."""
    if path is None:
        return
    known = {
        option_name(item): item
        for item in ctx.command.params
        if isinstance(item, click.Option) and option_name(item) not in NOT_SETTINGS
    }
    defaults = {}
    for key, value in _read(path).items():
        if key not in known:
            raise unknown_name(f"key of {path}", str(key), known)
        defaults[str(known[key].name)] = _checked(ctx, known[key], value, f"{path}: {key}")
    ctx.default_map = defaults


def option_name(option: click.Option) -> str:
    """Return an option's long name without the dashes."""
    return max(option.opts, key=len).removeprefix("--")


def _read(path: Path) -> dict[Any, Any]:
    """Return the mapping in the file; an empty file sets nothing."""
    raw = read_yaml(path, ArtefactError)
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must be a mapping of option names to values, got {raw!r}.")
    return raw


def _checked(ctx: click.Context, option: click.Option, value: Any, what: str) -> Any:
    """Return `value` if the option takes it; click converts it again when it is used."""
    if option.is_flag:
        if not isinstance(value, bool):
            raise ConfigError(f"{what}: must be true or false, got {value!r}.")
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"{what}: must be one text or number, got {value!r}.")
    try:
        option.type_cast_value(ctx, value)
    except click.BadParameter as error:
        raise ConfigError(f"{what}: {error.message}") from None
    return value
