"""The documentation says what the code says."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = runpy.run_path(str(ROOT / "scripts/docs.py"))["pages"]()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_parts_are_current(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == PAGES[page], "run `make docs`"


def test_every_module_has_a_docstring_line() -> None:
    text = PAGES[ROOT / "docs/internals/folders.md"]
    assert not re.findall(r"^- `[^`]+`: *$", text, re.MULTILINE)


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("scripts/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_backticked_paths_exist() -> None:
    """What a page names between backticks by a folder of the repository is there."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - {".venv", "dist", "demo"}
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
    checked = 0
    for page in pages:
        for words in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
            for word in words.split():
                path = word.split("::")[0].rstrip("/,;:.")
                is_pattern = re.search(r"[<>*{}$]", path)
                if "/" in path and path.split("/")[0] in folders and not is_pattern:
                    assert (ROOT / path).exists(), f"{page.name}: {word}"
                    checked += 1
    assert checked > 100


def test_the_readme_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text and "make test" in text
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("make test")
