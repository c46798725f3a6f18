"""Writes what the documentation repeats from the code: each folder in one line, each --help.

Run with `make docs`; a test checks that the files are current.
"""

import ast
import sys
import tomllib
from pathlib import Path

import click
from click.testing import CliRunner

from nemotrt.cli import main

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- generated: make docs -->", "<!-- end -->"
TOOL = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
ROOMS = [name for name in TOOL["hatch"]["build"]["only-include"] if (ROOT / name).is_dir()]


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n", 1)[0]


def folder_list() -> str:
    """Return one Markdown line per folder of the package, in a room's order."""
    return "\n".join(
        f"- `{path.parent.relative_to(ROOT).as_posix()}/`: {first_line(path)}"
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("__init__.py"), key=lambda path: path.parent)
    )


def help_pages(command: click.Command, path: tuple[str, ...] = ()) -> str:
    """Return the --help of a command and all below it."""
    result = CliRunner().invoke(main, [*path, "--help"], prog_name="nemotrt", terminal_width=90)
    text = f"\n{'#' * min(len(path) + 2, 4)} {' '.join(('nemotrt', *path))}\n\n"
    text += f"```text\n{result.output.rstrip()}\n```\n"
    if isinstance(command, click.Group):
        with click.Context(command) as ctx:
            for name in command.list_commands(ctx):
                child = command.get_command(ctx, name)
                assert child is not None
                text += help_pages(child, (*path, name))
    return text


def replaced(page: str, generated: str) -> str:
    """Return the page with the text between its markers replaced."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{generated}\n{END}{tail}"


def pages() -> dict[Path, str]:
    """Return each generated page and what it should say."""
    folders, commands = ROOT / "docs/internals/folders.md", ROOT / "docs/reference/commands.md"
    return {
        folders: replaced(folders.read_text(encoding="utf-8"), folder_list()),
        commands: replaced(commands.read_text(encoding="utf-8"), help_pages(main)),
    }


if __name__ == "__main__":
    for target, text in pages().items():
        target.write_text(text, encoding="utf-8")
        sys.stderr.write(f"wrote {target.relative_to(ROOT)}\n")
