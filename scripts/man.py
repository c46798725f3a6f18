"""Writes a man page of every command into dist/man: `man -M dist/man nemotrt-plan`."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click_man.core import generate_man_page

from nemotrt import __version__
from nemotrt.cli import main

MAN = Path(__file__).resolve().parent.parent / "dist/man/man1"


def contexts(context: click.Context) -> Iterator[click.Context]:
    """Yield the context of a command and of all below it; a lazy group lists its own."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            yield from contexts(click.Context(command, info_name=name, parent=context))


def pages() -> dict[str, str]:
    """Return the pages by file name."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # no date: equal commands give equal pages
    root = click.Context(main, info_name="nemotrt")
    return {
        f"{found.command_path.replace(' ', '-')}.1": generate_man_page(found, __version__)
        for found in contexts(root)
    }


if __name__ == "__main__":
    MAN.mkdir(parents=True, exist_ok=True)
    written = pages()
    for name, text in written.items():
        (MAN / name).write_text(text, encoding="utf-8")
    sys.stderr.write(f"wrote {len(written)} pages into {MAN}\n")
