"""The options that commands share, and the one loader of `--config FILE`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from nemotrt.commandline.kinds import PATH
from nemotrt.commandline.options import Command, Option, key_of
from nemotrt.errors import ArtefactError, ConfigError, unknown_name

force_option = click.option("--force", is_flag=True, help="Replace the output if it exists.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Check everything, write nothing.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="Nothing on stderr but faults, and no summary."
)


def output_option(
    text: str, kind: click.ParamType[Any] = PATH, **more: Any
) -> Callable[[Command], Command]:
    """Return the decorator that adds -o, where the artefact goes."""
    more = {"show_default": more.get("default") is not None} | more
    return click.option("-o", "--output", cls=Option, type=kind, help=text, **more)


def is_asked(*flags: str) -> bool:
    """Whether the command that runs was given one of its flags; False where none runs."""
    context = click.get_current_context(silent=True)
    return context is not None and any(context.params.get(flag) for flag in flags)


def config_option(command: Command) -> Command:
    """Add --config FILE: the command's parameters from YAML; the command line overrides them."""
    return click.option(
        "--config",
        type=PATH,
        is_eager=True,
        expose_value=False,
        callback=_load_config,
        metavar="FILE",
        help="YAML with these options, such as `force: true`; the command line overrides it.",
    )(command)


def _load_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Make the file's values the defaults of this call."""
    if path is None:
        return
    from nemotrt.files.text_file import read_yaml

    raw = read_yaml(path, ArtefactError)
    if not isinstance(raw, dict | None):
        raise ConfigError(f"{path} must be a mapping of option names to values, got {raw!r}.")
    shown = {key_of(item): item for item in ctx.command.params if item.expose_value}
    old = {name[2:]: item for item in shown.values() for name in getattr(item, "old_names", ())}
    values: dict[str, Any] = {}
    for key, value in (raw or {}).items():
        name = str(key).replace("_", "-")
        param = (shown | old).get(name)
        if param is None:
            raise unknown_name(f"key of {path}", str(key), shown)
        if str(param.name) in values:
            raise ConfigError(f"{path}: {key}: given twice; give it once.")
        if name in old:
            click.echo(f"note: {path}: {key} is called --{key_of(param)} now.", err=True)
        values[str(param.name)] = _checked(ctx, param, value, f"{path}: {key}")
    ctx.default_map = {**(ctx.default_map or {}), **values}


def _checked(ctx: click.Context, param: click.Parameter, value: Any, what: str) -> Any:
    """Return `value` if the parameter takes it; click converts it again when it is used."""
    if isinstance(param, click.Option) and param.is_flag:
        if not isinstance(value, bool):
            raise ConfigError(f"{what}: must be true or false, got {value!r}.")
        return value
    items = value if param.multiple and isinstance(value, list) else [value]
    if any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in items):
        raise ConfigError(f"{what}: must be one text or number, got {value!r}.")
    try:
        param.type_cast_value(ctx, items if param.multiple else value)
    except click.BadParameter as error:
        raise ConfigError(f"{what}: {error.message}") from None
    return items if param.multiple else value


def given_options(ctx: click.Context) -> dict[str, click.Option]:
    """Return the options, by name, that the command line or the --config file has."""
    default = click.core.ParameterSource.DEFAULT
    return {
        key_of(item): item
        for item in ctx.command.params
        if isinstance(item, click.Option)
        and ctx.get_parameter_source(str(item.name)) is not default
    }
