"""CONTRIBUTING says what each kind of addition touches; a member of each kind is counted."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "build",
    "charts",
    "commandline",
    "engines",
    "files",
    "profiles",
    "quantize",
    "serve",
    "wire",
)
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
ROWS = [
    (what, re.findall(r"`([^`]+)`", paths), example)
    for what, paths, example in re.findall(
        r"^\| (an? [^|]+) \| ([^|]+) \| `([^`]+)` \|$", TEXT, re.M
    )
]
DATA = {".csv", ".md", ".txt", ".json"}  # they name models and GPUs, and nobody adds a line there


def sources() -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".yaml") and "__pycache__" not in path.parts
    }


SOURCES = sources()


@pytest.mark.parametrize(("what", "paths", "example"), ROWS, ids=[row[0] for row in ROWS])
def test_a_member_touches_what_is_said(what: str, paths: list[str], example: str) -> None:
    """Its name stands in these files alone; a folder of members' files counts as one."""
    named = {
        path for path, text in SOURCES.items() if re.search(rf"{re.escape(example)}(?!\w)", text)
    }
    if (ROOT / paths[0]).is_dir():
        files = [p for p in (ROOT / paths[0]).rglob("*") if p.stem == example]
        assert files or any(path.startswith(paths[0]) for path in named)
    if what in ("a recipe of a known algorithm", "a GPU", "a model that the planner knows"):
        assert files and len(paths) == 1  # one file, which the code lists by itself
        return
    assert all(any(path.startswith(one) for path in named) for one in paths)
    assert all(any(path.startswith(one) for one in paths) for path in named), sorted(named)


def test_the_table_has_every_kind() -> None:
    kinds = ["model", "family", "backend", "recipe", "GPU", "endpoint", "metric"]
    assert all(any(kind in row[0] for row in ROWS) for kind in kinds) and len(ROWS) == len(kinds)


def test_the_word_list_is_the_linters() -> None:
    """Each left word passes, each banned one of the right column is caught."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("prose", ROOT / "tests/docs/test_prose.py")
    assert spec is not None and spec.loader is not None
    prose = module_from_spec(spec)
    spec.loader.exec_module(prose)
    table = TEXT.partition("| write | not |")[2]
    words = [
        word
        for cell in re.findall(r"^\| [^|]+ \| ([^|]+) \|$", table, re.M)
        for word in cell.split(", ")
    ]
    caught = [w for w in words if any(re.search(p, w.strip(), re.I) for p, _ in prose.BANNED)]
    assert {"e.g.", "i.e.", "utilize", "in order to", "please note that"} <= set(caught)


def test_two_pages() -> None:
    assert len(TEXT.split()) < 1000
