"""Writes what the documentation repeats from the code: each module in one line, each --help.

Run with `make docs`; a test checks that the files are current.
"""

import ast
import sys
from pathlib import Path

import click
from click.testing import CliRunner

from nemotrt.cli import main

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- generated: make docs -->", "<!-- end -->"
ROOMS = (".", "engines", "quantize", "build", "serve", "profiles")


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n", 1)[0]


def module_list() -> str:
    """Return one Markdown line a module, by room."""
    lines = []
    for room in ROOMS:
        folder = ROOT / room
        paths = sorted(folder.glob("*.py") if room == "." else folder.rglob("*.py"))
        lines += ["", f"### {'the root' if room == '.' else room + '/'}", ""]
        lines += [
            f"- `{path.relative_to(ROOT).as_posix()}`: {first_line(path)}"
            for path in paths
            if path.name != "__init__.py"
        ]
    return "\n".join(lines) + "\n"


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
    structure, commands = ROOT / "docs/structure.md", ROOT / "docs/commands.md"
    return {
        structure: replaced(structure.read_text(encoding="utf-8"), module_list()),
        commands: replaced(commands.read_text(encoding="utf-8"), help_pages(main)),
    }


if __name__ == "__main__":
    for target, text in pages().items():
        target.write_text(text, encoding="utf-8")
        sys.stderr.write(f"wrote {target.relative_to(ROOT)}\n")
