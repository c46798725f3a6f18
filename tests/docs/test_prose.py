"""The documents and the help texts are plain technical English, and the guides are easy to read."""

import re
from pathlib import Path

import pytest

from support.prose import reading_ease, sentences, words

ROOT = Path(__file__).resolve().parents[2]
OURS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
PAGES = [
    *(ROOT / name for name in OURS),
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.parent.name != "ja"),
]
GUIDES = [ROOT / "README.md", ROOT / "docs/quickstart.md", ROOT / "docs/installation.md",
          *sorted((ROOT / "docs/guides").glob("*.md"))]  # fmt: skip
MOST_WORDS = 40  # of a sentence
LEAST_EASE = 50  # Flesch; the pages of a newspaper have about 60
MOST_WORDS_OF_A_PAGE = 1500
LONG = ("reference/", "internals/folders.md", "measurements/peers.md")  # to look things up
COUNTED = "ms|us|tokens|bytes|KB|MB|GB|scale|object|one"
# Beside the table of CONTRIBUTING: (pattern, what to write).
BANNED = (
    (r"\be\.g\.", "for example"),
    (r"\bi\.e\.", "that is"),
    (r"\butili[sz]e|\bleverag", "use"),
    (r"\bin order to\b", "to"),
    (r"\bplethora\b|\bmyriad\b", "many"),
    (r"\b(obviously|of course)\b", "nothing"),
    (r"\b(please note|it should be noted)\b", "nothing"),
    (r"\b(seamless|cutting-edge|blazing|powerful|robust)", "the measured thing"),
    (rf"\b({COUNTED}) an? (token|step|second|channel|row|line|weight)\b", "per"),
)  # fmt: skip


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_sentence_is_no_paragraph(page: Path) -> None:
    long = [one for one in sentences(page.read_text("utf-8")) if len(words(one)) > MOST_WORDS]
    assert not long, long[0]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_word_is_banned(page: Path) -> None:
    for sentence in sentences(page.read_text("utf-8")):
        for pattern, instead in BANNED:
            found = re.search(pattern, sentence, re.IGNORECASE)
            assert not found, f"{found[0]!r}: write {instead!r} in: {sentence}"


@pytest.mark.parametrize("page", GUIDES, ids=name)
def test_a_guide_is_easy_to_read(page: Path) -> None:
    assert reading_ease(page.read_text("utf-8")) > LEAST_EASE


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_is_read_in_one_sitting(page: Path) -> None:
    if not name(page).removeprefix("docs/").startswith(LONG):
        assert len(page.read_text("utf-8").split()) <= MOST_WORDS_OF_A_PAGE


def test_help_texts_are_sentences_too() -> None:
    """As docs/reference/commands.md has them: an option's help is short."""
    text = (ROOT / "docs/reference/commands.md").read_text("utf-8")
    for block in re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        told = re.sub(r"\[(default|required)[^\]]*\]|\n  +-.*?(?=  )", ". ", block)
        for sentence in re.split(r"(?<=[.:])\s+|\n\s*\n", told):
            prose = " ".join(sentence.split())
            assert len(words(prose)) <= MOST_WORDS or "-" in prose[:4], prose
            for pattern, instead in BANNED:
                found = re.search(pattern, prose, re.IGNORECASE)
                assert not found, f"{found[0]!r}: write {instead!r} in: {prose}"


@pytest.mark.parametrize(
    ("text", "ease"),
    [
        ("The cat sat on the mat.", 116),  # 6 words, 6 syllables, by hand: 206.8 - 6.1 - 84.6
        ("Utilization notwithstanding, organizational instrumentalities proliferate.", -200),
    ],
)
def test_the_formula(text: str, ease: float) -> None:
    assert reading_ease(text) == pytest.approx(ease, abs=1) or (ease < 0 and reading_ease(text) < 0)


def test_prose_leaves_out_what_is_none() -> None:
    text = "# Head\n\nOne `x.y` is [here](z.md).\n\n```bash\nrun. it.\n```\n| a. |\n- Two. Three!\n"
    assert sentences(text) == ["One Code is here.", "Two.", "Three!"]
