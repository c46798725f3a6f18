"""Plain text of HTML, Mallard and roff documents, block by block."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SKIPPED_TAGS = _words(
    "script style nav header footer head aside noscript info svg button label form math"
)
SKIPPED_CLASSES = _words(
    "navheader navfooter docnav toc toc-title nav_table related sphinxsidebar footer headerlink "
    "legalnotice indexterm contents table-of-contents short-table-of-contents toc_current "
    "reportbug clearer revhistory footnotes-list language-bar headertitle authorgroup"
)
SKIPPED_IDS = _words("toc tocframe header footer footer-text languages main_header")
VOID_TAGS = _words("area base br col embed hr img input link meta source track wbr")
BLOCK_TAGS = _words(
    "p div li dt dd td th tr table ul ol dl section article blockquote figure figcaption page "
    "item note list steps terms desc body caption"
)
HEADINGS = _words("h1 h2 h3 h4 h5 h6 title")
CODE_TAGS = _words("pre screen code_block")


@dataclass(frozen=True, slots=True)
class Block:
    """One paragraph, heading or listing of a document."""

    kind: str
    text: str


class _Reader(HTMLParser):
    """Collects blocks; what sits in a skipped element is dropped with all its children."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._parts: list[str] = []
        self._kind = "text"
        self._stack: list[tuple[str, bool]] = []
        self._num_skipped = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "br" and not self._num_skipped:
            self._parts.append("\n" if self._kind == "code" else " ")
        if tag in VOID_TAGS:
            return
        values = dict(attrs)
        classes = set((values.get("class") or "").split())
        skipped = (
            tag in SKIPPED_TAGS
            or bool(classes & SKIPPED_CLASSES)
            or values.get("id") in SKIPPED_IDS
        )
        self._stack.append((tag, skipped))
        self._num_skipped += skipped
        if tag in HEADINGS:
            self._flush("heading")
        elif tag in CODE_TAGS:
            self._flush("code")
        elif tag in BLOCK_TAGS:
            self._flush("text" if self._kind == "heading" else self._kind)

    def handle_endtag(self, tag: str) -> None:
        if not any(open_tag == tag for open_tag, _ in self._stack):
            return
        while self._stack:
            open_tag, skipped = self._stack.pop()
            self._num_skipped -= skipped
            if open_tag == tag:
                break
        if tag in HEADINGS or tag in CODE_TAGS:
            self._flush("text")
        elif tag in BLOCK_TAGS:
            self._flush(self._kind)

    def handle_data(self, data: str) -> None:
        if not self._num_skipped:
            self._parts.append(data)

    def close(self) -> None:
        super().close()
        self._flush("text")

    def _flush(self, next_kind: str) -> None:
        text = "".join(self._parts)
        self._parts.clear()
        if self._kind == "code":
            text = "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))
        else:
            text = re.sub(r"\s+", " ", text).strip(" ¶#")
        if text.strip():
            self.blocks.append(Block(self._kind, text))
        self._kind = next_kind


ROFF_ESCAPES = re.compile(r"\\(?:f(?:\(..|\[[^]]*\]|.)|s[-+]?\d+|[,/&|^%:]|m\[[^]]*\])")
ROFF_NAMED = {
    r"\-": "-", r"\(aq": "'", r"\(dq": '"', r"\(bu": "*", r"\(co": "(C)", r"\(em": "--",
    r"\(en": "-", r"\(lq": '"', r"\(rq": '"', r"\(oq": "'", r"\(cq": "'", r"\(ha": "^",
    r"\(ti": "~", r"\(ga": "`", r"\e": "\\", r"\(rs": "\\", r"\ ": " ", r"\~": " ", r"\0": " ",
    r"\'": "'", r"\`": "`", r"\(mu": "x", r"\(<=": "<=", r"\(>=": ">=", r"\(->": "->",
}  # fmt: skip
ROFF_FONTS = re.compile(r"^\.\s*(?:BR|RB|BI|IB|IR|RI|B|I|SM|SB|MR|UR|Nm|Xr|Pa|Ar|Fl|Cm|Em|Sy)\b\s*")
ROFF_BREAKS = re.compile(r"^\.\s*(?:PP|P|LP|TP|TQ|IP|HP|sp|RS|RE|br|It|Pp|Bl|El|bp)\b")


def _roff_line(line: str) -> str:
    line = ROFF_ESCAPES.sub("", line)
    for escape, char in ROFF_NAMED.items():
        line = line.replace(escape, char)
    return re.sub(r"\\(?:\[[^]]*\]|\(..|.)", "", line)


def _roff_arguments(line: str) -> list[str]:
    found = re.findall(r'"((?:[^"]|"")*)"|(\S+)', line)
    return [_roff_line(quoted or bare) for quoted, bare in found]


def read_roff(text: str) -> list[Block]:
    """Returns the blocks of a manual page; macros that only set type are dropped."""
    blocks: list[Block] = []
    parts: list[str] = []
    kind = "text"

    def flush(next_kind: str) -> None:
        nonlocal kind
        joiner = "\n" if kind == "code" else " "
        joined = joiner.join(parts).strip("\n" if kind == "code" else None)
        parts.clear()
        if joined.strip():
            blocks.append(Block(kind, joined))
        kind = next_kind

    for line in text.replace("\\\n", "").split("\n"):
        if line.startswith(("'\\\"", '.\\"', "'")):
            continue
        if not line.startswith("."):
            if not line.strip() and kind == "text":
                flush("text")
            parts.append(_roff_line(line).rstrip())
        elif re.match(r"^\.\s*S[HSh]\b", line):
            flush("text")
            blocks.append(Block("heading", " ".join(_roff_arguments(line[3:]))))
        elif re.match(r"^\.\s*(nf|EX|Bd)\b", line):
            flush("code")
        elif re.match(r"^\.\s*(fi|EE|Ed)\b", line):
            flush("text")
        elif ROFF_BREAKS.match(line):
            flush(kind)
            if re.match(r"^\.\s*IP\b", line):
                parts.extend(_roff_arguments(line[3:])[:1])
        elif match := ROFF_FONTS.match(line):
            joiner = "" if re.match(r"^\.\s*(BR|RB|BI|IB|IR|RI)\b", line) else " "
            parts.append(joiner.join(_roff_arguments(line[match.end() :])))
    flush("text")
    return [block for block in blocks if block.text.strip()]


def read_markup(text: str) -> list[Block]:
    """Returns the blocks of an HTML or Mallard document, navigation left out."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader.blocks


def read_document(path: Path) -> list[Block]:
    """Returns the blocks of the file at `path`, read by its suffix."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    read: Callable[[str], list[Block]] = read_roff if path.suffix == ".gz" else read_markup
    return read(data.decode("utf-8", errors="ignore"))
