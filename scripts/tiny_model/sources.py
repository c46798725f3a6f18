"""The Debian packages that the corpus is made of, and where their documents lie."""

from __future__ import annotations

from dataclasses import dataclass

LILYPOND = "usr/share/doc/lilypond/html/Documentation"


@dataclass(frozen=True, slots=True)
class Source:
    """One package's documents in one language.

    Attributes:
        package: Debian package that holds the files.
        language: "en" or "ja".
        patterns: Globs below the unpacked package.
        may_hold_out: Whether its documents may go into the shipped held-out sample. False
            where each document has a licence of its own (manual pages).
    """

    package: str
    language: str
    patterns: tuple[str, ...]
    may_hold_out: bool = True


SOURCES: tuple[Source, ...] = (
    Source("aptitude-doc-en", "en", ("usr/share/doc/aptitude/html/en/*.html",)),
    Source("debian-edu-doc-en", "en", ("usr/share/doc/debian-edu-doc-en/*.html",)),
    Source("debian-faq", "en", ("usr/share/doc/debian/FAQ/*.en.html",)),
    Source("debian-handbook", "en", ("usr/share/doc/debian-handbook/html/en-US/*.html",)),
    Source("debian-history", "en", ("usr/share/doc/debian-history/docs/*.en.html",)),
    Source("debian-policy", "en", ("usr/share/doc/debian-policy/policy.html/*.html",)),
    Source("debian-reference-en", "en", ("usr/share/debian-reference/*.en.html",)),
    Source("developers-reference", "en", ("usr/share/developers-reference/*.html",)),
    Source("gimp-help-en", "en", ("usr/share/gimp/2.0/help/en/*.html",)),
    Source("git-doc", "en", ("usr/share/doc/git-doc/**/*.html",)),
    Source("gnome-user-docs", "en", ("usr/share/help/C/**/*.page",)),
    Source("installation-guide-amd64", "en", ("usr/share/doc/installation-guide-amd64/en/*.html",)),
    Source("kicad-doc-en", "en", ("usr/share/doc/kicad/help/en/*.html",)),
    Source("libreoffice-help-en-us", "en", ("usr/share/libreoffice/help/en-US/text/**/*.html",)),
    Source(
        "lilypond-doc-html",
        "en",
        tuple(
            f"{LILYPOND}/{part}/*.html"
            for part in ("learning", "notation", "usage", "extending", "contributor")
        ),
    ),
    Source("maint-guide", "en", ("usr/share/doc/maint-guide/html/*.html",)),
    Source("manpages", "en", ("usr/share/man/man*/*.gz",), may_hold_out=False),
    Source("manpages-dev", "en", ("usr/share/man/man*/*.gz",), may_hold_out=False),
    Source("python3.11-doc", "en", ("usr/share/doc/python3.11/html/**/*.html",)),
    Source("aptitude-doc-ja", "ja", ("usr/share/doc/aptitude/html/ja/*.html",)),
    Source("debian-edu-doc-ja", "ja", ("usr/share/doc/debian-edu-doc-ja/*.html",)),
    Source("debian-faq-ja", "ja", ("usr/share/doc/debian/FAQ/ja/*.html",)),
    Source("debian-handbook", "ja", ("usr/share/doc/debian-handbook/html/ja-JP/*.html",)),
    Source("debian-policy-ja", "ja", ("usr/share/doc/debian-policy/ja/policy.html/*.html",)),
    Source("debian-reference-ja", "ja", ("usr/share/debian-reference/*.ja.html",)),
    Source("developers-reference-ja", "ja", ("usr/share/developers-reference/ja/*.html",)),
    Source("gimp-help-ja", "ja", ("usr/share/gimp/2.0/help/ja/*.html",)),
    Source("gnome-user-docs", "ja", ("usr/share/help/ja/**/*.page",)),
    Source("installation-guide-amd64", "ja", ("usr/share/doc/installation-guide-amd64/ja/*.html",)),
    Source("kicad-doc-ja", "ja", ("usr/share/doc/kicad/help/ja/*.html",)),
    Source("libreoffice-help-ja", "ja", ("usr/share/libreoffice/help/ja/text/**/*.html",)),
    Source(
        "lilypond-doc-html-ja",
        "ja",
        tuple(f"{LILYPOND}/{part}/*.ja.html" for part in ("learning", "notation", "usage", "web")),
    ),
    Source("maint-guide-ja", "ja", ("usr/share/doc/maint-guide-ja/html/*.html",)),
    Source("manpages-ja", "ja", ("usr/share/man/ja/man*/*.gz",), may_hold_out=False),
    Source("manpages-ja-dev", "ja", ("usr/share/man/ja/man*/*.gz",), may_hold_out=False),
)
