"""Writes what the documentation repeats from the code: folders, --help, states, errors, metrics.

Run with `make docs`; a test checks that the files are current.
"""

import ast
import json
import sys
import tomllib
from pathlib import Path

import click
from click.testing import CliRunner

from nemotrt import errors
from nemotrt.build import support_table
from nemotrt.cli import main
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.backend import AnyBackend
from nemotrt.engines.model.numerics import BUILT, Precision
from nemotrt.profiles.runs.metrics.catalogue import METRICS
from nemotrt.wire import tensors
from nemotrt.wire.request import DEFAULTS, RANGES

ROOT = Path(__file__).resolve().parent.parent
LIST = ", a list"
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


# How far each word of `build --list` goes, the furthest first: its symbol and what it says.
STATES = (
    ("run and tested here", "●", "run here, tested against transformers"),
    ("compiled, not executed", "◐", "compiled here by NVIDIA's compiler, its layers checked"),
    (
        "compiles on its host, not tried",
        "◔",
        "compiles on the GPU's host, not tried; rehearsed over a stand-in",
    ),
    ("written, not executed", "○", "written for NVIDIA's runtime on the GPU's host"),
    ("exported, not executed", "○", ""),
)


def state(words: set[str]) -> str:
    """Return the symbol of the furthest of several backends' words, or a dash."""
    return next((symbol for word, symbol, _ in STATES if word in words), "-")


def takes(backend: AnyBackend, precision: Precision) -> bool:
    """Return whether a CPU backend runs the precision, at least of a checkpoint quantized so."""
    reason = backend.supports(None, precision)
    return reason is None or "from a checkpoint quantized to it" in reason


def support() -> str:
    """Return the table of GPUs, precisions and states, by the registry of backends."""
    cpus = [registry.find(name) for name in registry.cpu_names()]
    on_cpu = [state({cpu.built for cpu in cpus if takes(cpu, one)}) for one in BUILT]
    lines = [("any CPU", *on_cpu)]
    found: dict[tuple[str, ...], list[str]] = {}
    for gpu in dict.fromkeys(row["gpu"] for row in support_table.rows()):
        cells = [state(set(support_table.row(gpu, precision).values())) for precision in BUILT]
        found.setdefault(
            (support_table.row(gpu, BUILT[0])["compute_capability"], *cells), []
        ).append(gpu)
    ordered = sorted(found.items(), key=lambda item: float(item[0][0]))
    lines += [(f"{', '.join(gpus)} ({row[0]})", *row[1:]) for row, gpus in ordered]
    heads = ["", *(f"`{precision.value}`" for precision in BUILT)]
    table = [heads, ["---", *(":-:" for _ in BUILT)], *lines]
    legend = "; ".join(f"{symbol} {what}" for _, symbol, what in STATES if what)
    return (
        "\n".join(f"| {' | '.join(line)} |" for line in table) + f"\n\n{legend}; - refused by name."
    )


def error_table() -> str:
    """Return the tree of errors as a table."""
    tree = [
        one for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.NemotrtError)
    ]  # fmt: skip
    rows = sorted(
        (one.exit_code, one.__name__, (one.__doc__ or "").partition(";")[0]) for one in tree
    )
    lines = [f"| {code} | `{name}` | {what} |" for code, name, what in rows]
    return "\n".join(["| code | class | what |", "|---|---|---|", *lines])


def metric_table() -> str:
    """Return every metric of a run with its unit and formula."""
    rows = (
        f"| `{one.name}` | {one.unit} | {one.formula} | {one.source} |".replace("||", "| |")
        for one in METRICS
    )
    return "\n".join(["| metric | unit | formula | source |", "|---|---|---|---|", *rows])


def tensor_table() -> str:
    """Return the inputs and outputs of Triton's model."""
    lines = ["| tensor | type | default | legal |", "|---|---|---|---|"]
    for spec in tensors.INPUTS:
        default = DEFAULTS.get(spec.name)
        told = "" if default is None or default == () else f"`{json.dumps(default)}`"
        legal = RANGES[spec.name].legal if spec.name in RANGES else ""
        lines.append(f"| `{spec.name}` | {spec.type}{LIST * spec.is_list} | {told} | {legal} |")
    lines += ["", "| output | type |", "|---|---|"]
    lines += [f"| `{spec.name}` | {spec.type}{LIST * spec.is_list} |" for spec in tensors.OUTPUTS]
    return "\n".join(lines)


def replaced(page: str, generated: str) -> str:
    """Return the page with the text between its markers replaced."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{generated}\n{END}{tail}"


def pages() -> dict[Path, str]:
    """Return each generated page and what it should say."""
    made = {
        "README.md": support,
        "docs/internals/folders.md": folder_list,
        "docs/reference/commands.md": lambda: help_pages(main),
        "docs/reference/errors.md": error_table,
        "docs/reference/profiling.md": metric_table,
        "docs/reference/triton.md": tensor_table,
    }
    return {
        ROOT / name: replaced((ROOT / name).read_text(encoding="utf-8"), make())
        for name, make in made.items()
    }


if __name__ == "__main__":
    for target, text in pages().items():
        target.write_text(text, encoding="utf-8")
        sys.stderr.write(f"wrote {target.relative_to(ROOT)}\n")
