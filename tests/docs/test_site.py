"""The site: each page is in it, every link leads somewhere, and it asks for nothing outside."""

import json
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)]+)\)")
OUTSIDE = re.compile(r"""(?:src|href|url)\s*[=(]\s*["']?(https?:)?//(?!127\.0\.0\.1|localhost)""")


def configuration() -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    return found


def paths(entry: object) -> list[str]:
    """Return the pages of the navigation."""
    match entry:
        case str():
            return [entry]
        case dict():
            return [path for value in entry.values() for path in paths(value)]
        case list():
            return [path for value in entry for path in paths(value)]
    return []


def test_every_page_is_in_the_navigation_once() -> None:
    told = paths(configuration()["nav"])
    assert sorted(told) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_the_site_names_no_other_host() -> None:
    """No fonts, no repository whose stars are counted, no scripts of others."""
    found = configuration()
    theme = found["theme"]
    assert isinstance(theme, dict) and theme["font"] is False
    assert not {"repo_url", "extra_javascript"} & set(found)
    assert "://" not in (ROOT / "mkdocs.yml").read_text("utf-8")


def test_anchors_lead_to_headings() -> None:
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", page.read_text("utf-8")):
            if "://" in target:
                continue
            other = (page.parent / target if target else page).read_text("utf-8")
            heads = re.findall(r"^#+ (.*)$", other, re.MULTILINE)
            slugs = {
                re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads
            }
            assert anchor in slugs, f"{page.name}: {target}#{anchor}"


def test_every_picture_is_made_by_the_target_and_says_what_it_shows() -> None:
    pictures = runpy.run_path(str(ROOT / "scripts/pictures.py"))
    drawn = pictures["drawings"]()
    made = {*drawn, *(f"{name}.png" for name in pictures["SHOTS"])}
    there = {path.name for path in (DOCS / "pictures").iterdir()} - {"site.css"}
    assert there == made
    for file, text in drawn.items():
        ElementTree.fromstring(text)
        assert (DOCS / "pictures" / file).read_text("utf-8") == text, "run `make pictures`"
    shown = set()
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for words, target in IMAGE.findall(page.read_text("utf-8")):
            assert len(words) > 20 and "://" not in target
            shown.add(Path(target).name)
    assert shown == made
    assert sum(path.stat().st_size for path in (DOCS / "pictures").iterdir()) < 400_000


def test_a_measurement_has_its_date_and_its_command() -> None:
    index = (DOCS / "measurements/index.md").read_text("utf-8")
    for page in (DOCS / "measurements").glob("*.md"):
        text = page.read_text("utf-8")
        if page.name != "index.md":
            assert re.search(r"20\d\d-\d\d-\d\d|(August|September|November) 2026", text), page.name
            assert re.search(rf"\({page.name}\) \| `", index), page.name


@pytest.mark.slow
def test_the_site_is_whole_and_asks_for_nothing_outside(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))
    for page in pages:
        head = page.read_text("utf-8").partition("<main")[0]
        assert not OUTSIDE.search(head), (page.name, OUTSIDE.search(head))
    found = json.loads((tmp_path / "search/search_index.json").read_text("utf-8"))
    index = " ".join(entry["title"] for entry in found["docs"])
    assert "kept prefixes" in index.lower() and "クイックスタート" in index
    api = (tmp_path / "reference/api.html").read_text("utf-8")
    assert "max_thinking_tokens" in api and "nemotrt.llm.LLM" in api
