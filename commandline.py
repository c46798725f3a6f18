"""The command kit: options that dataclasses tell, `--config FILE`, and what all commands share.

A frozen dataclass tells its options with `option()`, so that a default, a help text and a range
stand in the dataclass alone; `@options_of(Dataclass)` gives them to a command and hands it the
dataclass.
"""

import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import click

from nemotrt.errors import ArtefactError, ConfigError, unknown_name

Command = TypeVar("Command", bound=Callable[..., Any])
TOLD = "option"  # the key in a field's metadata


class FloatRange(click.FloatRange):
    """A range of finite numbers; click's own takes NaN for any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        found = super().convert(value, param, ctx)
        return found if math.isfinite(found) else self.fail(f"{value!r} is not finite.", param, ctx)


class Words(click.Choice[str]):
    """Words for the members of an enum; `old` ones of the release before are taken unseen."""

    def __init__(self, words: Mapping[str, Enum], old: Mapping[str, Enum] | None = None) -> None:
        """Show `words`."""
        super().__init__(list(words))
        self.words, self.old = words, old or {}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the member."""
        return self.old.get(value) or self.words[super().convert(value, param, ctx)]


def choices(items: Collection[Any]) -> Words:
    """Return the type of an option that takes one of these members of an enum."""
    return Words({str(item.value): item for item in items})


PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
READABLE = click.Path(path_type=Path, dir_okay=False, exists=True)
COUNT = click.IntRange(1)
ABOVE_0 = FloatRange(0, min_open=True)
PORT = click.IntRange(0, 65535)


@dataclass(frozen=True, slots=True)
class Told:
    """What a field says of its option, beside its own name, type and default.

    Attributes:
        help: the line of --help.
        names: the spellings; none means --field-name.
        old: spellings of the release before, which work and are not shown.
        kind: what click reads, where the field's type does not say it all.
        unset: what holds where nothing is given, in words.
        metavar: what --help calls the value.
        scale: the field is that many times the number given, and has no default to show.
    """

    help: str
    names: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    kind: click.ParamType[Any] | None = None
    unset: str = ""
    metavar: str | None = None
    scale: int = 1


def option(default: Any, text: str, *names: str, **told: Any) -> Any:
    """Return a dataclass's field that has an option; `told` are Told's further attributes."""
    return field(default=default, metadata={TOLD: Told(text, names, **told)})


def _fields(kind: Any) -> Iterator[Field[Any]]:
    """Yield a dataclass's fields; a field that is a dataclass itself gives way to its own."""
    for item in fields(kind):
        yield from _fields(item.type) if is_dataclass(item.type) else (item,)


def told_fields(kind: type) -> Iterator[tuple[Field[Any], Told]]:
    """Yield the fields of a dataclass that have an option, which has its spellings."""
    for item in _fields(kind):
        if told := item.metadata.get(TOLD):
            yield item, replace(told, names=told.names or (f"--{item.name.replace('_', '-')}",))


def options_of(kind: type, without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Return the decorator that gives a command the options of a dataclass's fields.

    The command gets the dataclass as the parameter named after it, SomeOptions as `some_options`.
    A field without an option takes the command's own parameter of that name, if there is one.
    """
    told = [item for item in told_fields(kind) if item[0].name not in without]
    own = {item.name for item in _fields(kind)} - set(without)
    name = "".join(f"_{c.lower()}" if c.isupper() else c for c in kind.__name__)[1:]

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def command(*args: Any, **given: Any) -> Any:
            values = {key: given.pop(key) for key in own & given.keys()}
            return function(*args, **given, **{name: filled(kind, values)})

        decorated: Any = command
        for item, what in reversed(told):
            decorated = click_option(item, what)(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def filled(kind: Any, given: Mapping[str, Any]) -> Any:
    """Return the dataclass of what click read, by field; what is not given keeps its default."""
    values = {}
    for item in fields(kind):
        told, value = item.metadata.get(TOLD), given.get(item.name)
        if is_dataclass(item.type):
            value = filled(item.type, given)
        elif told and item.default is True and value is not None:  # its flag takes it away
            value = not value
        elif told and told.scale != 1 and value is not None:
            value = int(value * told.scale)
        if value is not None:
            values[item.name] = value
    return kind(**values)


def words_of(options: Any) -> list[str]:
    """Return the command line that says a dataclass's options; a default needs no word."""
    words = []
    for item in fields(options):
        value = getattr(options, item.name)
        if is_dataclass(value):
            words += words_of(value)
        elif (told := item.metadata.get(TOLD)) and value != item.default:
            name = (*told.names, f"--{item.name.replace('_', '-')}")[0]
            words += [name] if isinstance(value, bool) else [name, str(value)]
    return words


def click_option(item: Field[Any], told: Told) -> Callable[[Command], Command]:
    """Return the decorator that adds a field's option to a command."""
    shown = item.default.value if isinstance(item.default, Enum) else item.default
    more: dict[str, Any] = {"type": told.kind or _click_type(item.type), "metavar": told.metavar}
    if isinstance(shown, bool):
        more = {"is_flag": True}
    elif get_origin(item.type) is tuple:
        more["multiple"] = True
    elif told.scale == 1 and shown is not None and not told.unset:
        more |= {"default": shown, "show_default": shown != ""}
    text = f"{told.help}  [default: {told.unset}]" if told.unset else told.help
    return click.option(*told.names, item.name, cls=Option, old=told.old, help=text, **more)


def _click_type(hint: Any) -> Any:
    """Return what click reads for a field of this type, which may be optional or a tuple."""
    plain = next((one for one in get_args(hint) if one is not type(None)), hint)
    if plain is Path:
        return PATH
    return choices(list(plain)) if issubclass(plain, Enum) else plain


class Option(click.Option):
    """An option that still takes its spellings of the release before, and says the new one."""

    def __init__(self, *args: Any, old: Sequence[str] = (), **more: Any) -> None:
        """Take click's parameters, and the `old` spellings."""
        super().__init__(*args, **more)
        self.old_names = tuple(old)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Let the parser know the old spellings too."""
        super().add_to_parser(parser, ctx)
        for name in self.old_names:
            parser.add_option(obj=self, opts=[name], dest=name, nargs=self.nargs)

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> Any:
        """Return the value by whichever spelling, and where it is from."""
        for name in opts.keys() & set(self.old_names):
            if str(self.name) in opts:
                raise click.UsageError(f"{name} is --{key_of(self)} now: give it once.", ctx)
            click.echo(f"note: {name} is called --{key_of(self)} now.", err=True)
            opts = {str(self.name): opts[name]}
        return super().consume_value(ctx, opts)


def output_option(
    text: str, kind: click.ParamType[Any] = PATH, **more: Any
) -> Callable[[Command], Command]:
    """Return the decorator that adds -o, where the artefact goes."""
    more = {"show_default": more.get("default") is not None} | more
    return click.option("-o", "--output", cls=Option, type=kind, help=text, **more)


force_option = click.option("--force", is_flag=True, help="Replace the output if it exists.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Check everything, write nothing.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
quiet_option = click.option(
    "-q", "--quiet", is_flag=True, help="Nothing on stderr but faults, and no summary."
)


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


def key_of(param: click.Parameter) -> str:
    """Return what a parameter is called in a file: its long name without the dashes."""
    return max(param.opts, key=len).removeprefix("--").replace("_", "-")


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


def is_asked(*flags: str) -> bool:
    """Whether the command that runs was given one of its flags; False where none runs."""
    context = click.get_current_context(silent=True)
    return context is not None and any(context.params.get(flag) for flag in flags)


class DefaultGroup(click.Group):
    """A group with a default command: `plan MODEL` and `plan sweep MODEL` side by side.

    Arguments that begin with no subcommand are the default's. A hidden default has
    its help and its usage from the group.
    """

    def __init__(self, *args: Any, default: str = "run", **more: Any) -> None:
        """Take click's parameters, and the name of the default command."""
        super().__init__(*args, **more)
        self.default_name = default

    @property
    def _hidden(self) -> click.Command | None:
        """The default command, if it has no help of its own."""
        default = self.commands[self.default_name]
        return default if default.hidden else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default's name before arguments that name no subcommand."""
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if not self.no_args_is_help and not args:
            args = [self.default_name]
        if args and args[0] not in self.commands and args[0] not in own:
            args = [self.default_name, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a wrong use of a hidden default shows the group's own usage."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if self._hidden and error.ctx and error.ctx.info_name == self.default_name:
                error.ctx = ctx
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a hidden default's in place of the group's, then the commands."""
        if self._hidden is None:
            super().format_options(ctx, formatter)
            return
        self._hidden.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)
