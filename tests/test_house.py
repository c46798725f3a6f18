"""The shape of the house: no cycle of files or folders, no arrow up, no folder without a shape."""

import ast
from collections.abc import Hashable, Iterable, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the ground up: a room imports of those before it, and of itself.
GROUND = ("files", "commandline", "charts", "wire")
ROOMS = (*GROUND, "engines", "profiles", "quantize", "build", "serve")
MAX_ENTRIES = 12
MORE_ENTRIES = {
    "engines/backends/native/step": "kernels",
    "profiles/planning/sources/models": "a file for each model that is known by name",
}
NOT_COUNTED = {"__pycache__"}


def modules() -> dict[str, Path]:
    """The package's modules by dotted name; a package by its own name."""
    paths = [*ROOT.glob("*.py"), *(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }


MODULES = modules()


def imports(name: str) -> set[str]:
    """The package's modules that a module imports, anywhere in it."""
    path, found = MODULES[name], set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.removeprefix("nemotrt.") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(ROOT).parts[: -node.level]) if node.level else ""
            base = f"{package}.{node.module or ''}".strip(".").removeprefix("nemotrt").strip(".")
            names = [f"{base}.{alias.name}".strip(".") for alias in node.names] + [base]
        else:
            continue
        # `from folder import module` is an import of the module, not of the folder
        found |= {found_name for found_name in names if found_name in MODULES}
        found -= {n.rpartition(".")[0] for n in names if n in MODULES}
    return found - {name}


@cache
def all_imports() -> dict[str, set[str]]:
    """Each module's imports; read once, and not while tests are collected."""
    return {name: imports(name) for name in MODULES}


def cycle(graph: Mapping[Hashable, Iterable[Hashable]]) -> list[Hashable]:
    """One cycle of a graph, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def folder(name: str) -> str:
    """The folder of a module; a module of the root is a folder of its own."""
    path = MODULES[name].relative_to(ROOT)
    return path.as_posix() if len(path.parts) == 1 else path.parent.as_posix()


def test_the_tests_see_the_imports() -> None:
    assert "engines.runtime.engine" in all_imports()["engines.runtime.scheduling.scheduler"]
    assert cycle({"a": {"b"}, "b": {"a"}})
    assert len(MODULES) > 300


def test_no_cycle_of_files() -> None:
    assert not cycle(all_imports())


def test_no_cycle_of_folders() -> None:
    graph: dict[str, set[str]] = {}
    for name, others in all_imports().items():
        graph.setdefault(folder(name), set()).update(folder(other) for other in others)
    assert not cycle({home: others - {home} for home, others in graph.items()})


@pytest.mark.parametrize("room", ROOMS)
def test_no_arrow_up(room: str) -> None:
    below = {"commandline", "errors", "needs", "progress", room, *ROOMS[: ROOMS.index(room)]}
    for name in MODULES:
        if name.split(".")[0] == room:
            assert {other.split(".")[0] for other in all_imports()[name]} <= below, name


def test_a_folder_holds_few_entries() -> None:
    folders = [path for room in ROOMS for path in [ROOT / room, *(ROOT / room).rglob("*/")]]
    for path in folders:
        entries = {entry.name for entry in path.iterdir()} - NOT_COUNTED
        where = path.relative_to(ROOT).as_posix()
        if path.name not in NOT_COUNTED and where not in MORE_ENTRIES:
            assert len(entries) <= MAX_ENTRIES, (where, sorted(entries))


def test_each_folder_says_what_is_in_it() -> None:
    for name, path in MODULES.items():
        if path.parent != ROOT / "build" and path.parent != ROOT:
            assert (path.parent / "__init__.py").is_file(), name
        if path.name == "__init__.py":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), name


def test_the_strict_model_and_its_fault_stand_once() -> None:
    """Requests over the wire have their own terms; every file is read by `files/model_file.py`."""
    own = {"serve.requests.inputs", "serve.front.schema.messages", "serve.front.openai.prepare"}
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        if 'extra="forbid"' in text or "ValidationError" in text:
            assert name == "files.model_file" or name in own, name
