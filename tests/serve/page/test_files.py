"""What the chat page is made of: known files, each by its type, and nothing that runs inline."""

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.http.access import ApiKeys
from nemotrt.serve.front.http.tenants import Tenants
from nemotrt.serve.front.page.routes import CONTENT_TYPES, FOLDER, page_files
from support.saying_upstream import FILES, SayingUpstream

ROOT = Path(__file__).parents[3]
OWN = [*sorted((FOLDER / "js").rglob("*.js")), FOLDER / "chat.html"]
TEXTS = {path.stem: json.loads(path.read_text("utf-8")) for path in FOLDER.glob("texts/*.json")}
PLACE = re.compile(r"\{(\w+)\}")


@pytest.fixture(scope="module")
def http():
    with TestClient(create_app(FrontSpec("llm", FILES, SayingUpstream()))) as client:
        yield client


class Html(HTMLParser):
    """What a page loads, what would run in it, and the names that it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.inline: list[str] = []
        self.ids: list[str] = []
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.inline += [name for name in found if name.startswith("on") or name == "style"]
        self.loads += [str(found[n]) for n in ("src", "href") if n in found and tag != "use"]
        self.ids += [str(found["id"])] if "id" in found else []
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style") and data.strip():
            self.inline.append(data)


PAGE = Html()
PAGE.feed((FOLDER / "chat.html").read_text("utf-8"))


def test_nothing_is_inline_and_all_that_is_loaded_is_here(http) -> None:
    assert not PAGE.inline
    assert len(PAGE.ids) == len(set(PAGE.ids))
    assert len(PAGE.loads) == 3
    for path in PAGE.loads:
        assert http.get(f"/{path}").is_success


@pytest.mark.parametrize("name", ["", *(f"page/{name}" for name in page_files())])
def test_each_file_has_its_type_and_is_sent_once(http, name) -> None:
    answer = http.get(f"/{name}")
    suffix = Path(name).suffix or ".html"
    assert answer.status_code == 200 and answer.headers["content-type"] == CONTENT_TYPES[suffix]
    assert answer.content == (FOLDER / (name.removeprefix("page/") or "chat.html")).read_bytes()
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = http.get(f"/{name}", headers={"if-none-match": f'"x", W/{answer.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert http.get(f"/{name}", headers={"if-none-match": '"x"'}).status_code == 200
    head = http.head(f"/{name}")
    assert (head.content, head.headers["content-length"]) == (b"", str(len(answer.content)))


def test_the_policy_lets_nothing_inline_and_nothing_from_elsewhere(http) -> None:
    policy = http.get("/").headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.pop("require-trusted-types-for") == "'script'"
    assert rules.pop("trusted-types") == "dompurify"
    assert rules.pop("default-src") == "'none'"
    assert set(rules.values()) == {"'self'", "'none'"}
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"


@pytest.mark.parametrize(
    "name",
    ["__init__.py", "routes.py", "../app.py", "%2e%2e/app.py", "js", "", "vendor/marked/LICENSE"],
)
def test_nothing_else_is_served(http, name) -> None:
    assert http.get(f"/page/{name}").status_code == 404


def test_the_page_needs_a_key_where_the_api_does() -> None:
    keys = ApiKeys((hashlib.sha256(b"secret").digest(),))
    app = create_app(FrontSpec("llm", FILES, SayingUpstream(), Tenants(keys)))
    with TestClient(app) as http:
        for path in ("/", "/page/js/main.js", "/page/nothing"):
            refused = http.get(path)
            assert refused.status_code == 401 and "Basic" in refused.headers["www-authenticate"]
        assert http.get("/page/js/main.js", auth=("", "secret")).is_success


def test_modules_import_what_there_is_and_make_no_html() -> None:
    found = 0
    for path in (FOLDER / "js").rglob("*.js"):
        text = path.read_text("utf-8")
        imports = re.findall(r'(?:from |import |import\()"([^"]+)"', text)
        for name in imports:
            assert name.startswith(".") and (path.parent / name).is_file(), (path, name)
        found += len(imports)
        forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function"
        assert not re.search(forbidden, text), path
    assert found > 30


def test_elements_that_modules_name_are_on_the_page() -> None:
    named = set(re.findall(r'\$\("([\w-]+)"\)', "".join(p.read_text("utf-8") for p in OWN)))
    assert len(named) > 30 and named <= set(PAGE.ids)
    icons = set(re.findall(r'icon(?:Button)?\("(\w+)"', "".join(p.read_text() for p in OWN)))
    assert icons and {f"icon-{name}" for name in icons} <= set(PAGE.ids)


def test_both_languages_have_the_same_words() -> None:
    assert set(TEXTS) == {"en", "ja"}
    assert list(TEXTS["en"]) == list(TEXTS["ja"]) == sorted(TEXTS["en"])
    for key, text in TEXTS["en"].items():
        assert set(PLACE.findall(text)) == set(PLACE.findall(TEXTS["ja"][key])), key
        assert text != TEXTS["ja"][key], key


def test_every_word_that_is_used_is_there_and_no_other() -> None:
    code = "".join(path.read_text("utf-8") for path in OWN)
    used = set(re.findall(r'\b(?:t|named|warn|note)\("(\w+)"', code))
    used |= set(re.findall(r'data-(?:text|hint|label)="(\w+)"', code))
    assert used <= set(TEXTS["en"])
    assert not [key for key in TEXTS["en"] if not re.search(rf'"{key}"', code)]


def told_digests() -> dict[str, str]:
    """The table of docs/reference/http/chat-page.md: a file below vendor/, and its SHA-256."""
    text = (ROOT / "docs/reference/http/chat-page.md").read_text("utf-8")
    return dict(re.findall(r"^\| `([\w/.-]+)` \|.*\| `([0-9a-f]{64})` \|$", text, re.MULTILINE))


def test_libraries_are_as_they_came() -> None:
    vendor = FOLDER / "vendor"
    files = {
        path.relative_to(vendor).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in vendor.rglob("*")
        if path.is_file()
    }
    assert files == told_digests()
    for folder in vendor.iterdir():
        licence = (folder / "LICENSE").read_text("utf-8")
        assert re.search("MIT License|Permission is hereby granted|Apache License|BSD", licence)
