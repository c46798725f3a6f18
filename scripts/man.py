"""Writes a man page of every command into dist/man: `man -M dist/man nemotrt-plan`."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from nemotrt import __version__
from nemotrt.cli import main

VERBATIM = "\b\n"  # what click does not wrap
MAN = Path(__file__).resolve().parent.parent / "dist/man/man1"


def contexts(context: click.Context) -> Iterator[click.Context]:
    """Yield the context of a command and of all below it; a lazy group lists its own."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            yield from contexts(click.Context(command, info_name=name, parent=context))


def roff(text: str) -> str:
    """Return text as roff: dashes can be copied, and no line begins a request."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


def page(context: click.Context) -> str:
    """Return a command's page."""
    command = context.command
    name, told = context.command_path.replace(" ", "-"), command.help or ""
    summary, *blocks = told.split("\n\n")
    lines = [
        f'.TH "{roff(name.upper())}" "1" "" "nemotrt {__version__}" "nemotrt"',
        ".SH NAME",
        f"{roff(name)} \\- {roff(' '.join(summary.split()).rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {roff(context.command_path)}",
        roff(" ".join(command.collect_usage_pieces(context))),
        *([".SH DESCRIPTION"] if blocks else []),
    ]
    for block in blocks:
        is_verbatim = block.startswith(VERBATIM)
        words = roff(block.removeprefix(VERBATIM))
        lines += [".PP", *([".nf", words, ".fi"] if is_verbatim else [words])]
    found_records = (one.get_help_record(context) for one in command.params)
    records = [found for found in found_records if found and found[1]]
    lines += [".SH OPTIONS"] if records else []
    for option, help_text in records:
        lines += [".TP", f".B {roff(option)}", roff(" ".join(help_text.split()))]
    if isinstance(command, click.Group):
        lines += [".SH COMMANDS"]
        for child in command.list_commands(context):
            lines += [".TP", f".B {roff(f'{name}-{child}')}(1)"]
            found = command.get_command(context, child)
            assert found is not None
            lines.append(roff(found.get_short_help_str(200)))
    return "\n".join([*lines, ".SH SEE ALSO", r"nemotrt(1), the manual in docs/", ""])


def pages() -> dict[str, str]:
    """Return the pages by file name."""
    root = click.Context(main, info_name="nemotrt", **main.context_settings)
    return {f"{found.command_path.replace(' ', '-')}.1": page(found) for found in contexts(root)}


if __name__ == "__main__":
    MAN.mkdir(parents=True, exist_ok=True)
    written = pages()
    for file, text in written.items():
        (MAN / file).write_text(text, encoding="utf-8")
    sys.stderr.write(f"wrote {len(written)} pages into {MAN}\n")
