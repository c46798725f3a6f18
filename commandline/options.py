"""Options that a frozen dataclass tells, and the dataclass that a command gets of them."""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import click

from nemotrt.commandline.kinds import PATH, choices

Command = TypeVar("Command", bound=Callable[..., Any])
TOLD = "option"  # the key in a field's metadata


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


def required(text: str, *names: str, **told: Any) -> Any:
    """Return a dataclass's field that must be given; it has no default."""
    return field(metadata={TOLD: Told(text, names, **told)})


def one_option(kind: type, name: str) -> Callable[[Command], Command]:
    """Return the decorator that gives a command one of a dataclass's options, by its name."""
    [told] = [click_option(item, what) for item, what in told_fields(kind) if item.name == name]
    return told


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
            values = value if isinstance(value, tuple) else (value,)
            for one in values:
                words += [name] if isinstance(one, bool) else [name, str(one)]
    return words


def click_option(item: Field[Any], told: Told) -> Callable[[Command], Command]:
    """Return the decorator that adds a field's option to a command."""
    shown = item.default.value if isinstance(item.default, Enum) else item.default
    more: dict[str, Any] = {"type": told.kind or _click_type(item.type), "metavar": told.metavar}
    if isinstance(shown, bool):
        more = {"is_flag": True}
    elif get_origin(item.type) is tuple:
        more["multiple"] = True
    elif shown is MISSING:
        more["required"] = True
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


def key_of(param: click.Parameter) -> str:
    """Return what a parameter is called in a file: its long name without the dashes."""
    return max(param.opts, key=len).removeprefix("--").replace("_", "-")
