"""The page that every report has: one file, no script, nothing fetched; and files of plots."""

import itertools
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from nemotrt.charts.png import png
from nemotrt.charts.spec import About, Chart
from nemotrt.charts.svg import figure
from nemotrt.charts.theme import theme_css
from nemotrt.errors import ConfigError
from nemotrt.files.writing import check_file, write_file

STYLE = Path(__file__).with_name("style.css")


def page(about: About, body: str) -> str:
    """Return a page that says what it is of, when, on which assumptions and with which notes."""
    title, css = escape(about.title), theme_css() + STYLE.read_text(encoding="utf-8")
    assumed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
                      for name, value in about.assumptions)  # fmt: skip
    bad = " bad" if about.is_bad else ""
    head = [
        f"<h1>{title}</h1>",
        f'<p class="verdict{bad}">{escape(about.lead)}</p>' if about.lead else "",
        f'<dl class="assumed">{assumed}</dl>' if assumed else "",
        *(f'<p class="note">{prose(note)}</p>' for note in about.notes),
    ]
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{css}</style></head>\n<body>\n<main>"
        + "\n".join([*filter(None, head), body])
        + f"\n</main><footer><small>Written by nemotrt, {written}.</small></footer></body></html>\n"
    )


def prose(text: str) -> str:
    """Return a sentence as HTML; what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def plots(charts: Iterable[Chart]) -> str:
    """Return the charts side by side, as many as the window has room for."""
    return f'<div class="plots">\n{chr(10).join(map(figure, charts))}\n</div>'


def table(heads: Iterable[str], rows: Iterable[Iterable[object]], num_names: int = 1) -> str:
    """Return a table that scrolls by itself; its first columns are names, the others numbers."""

    def cells(tag: str, values: Iterable[object]) -> str:
        kinds = (tag if place < num_names else f'{tag} class="n"' for place in itertools.count())
        pairs = zip(kinds, values, strict=False)
        return f"<tr>{''.join(f'<{k}>{escape(str(v))}</{tag}>' for k, v in pairs)}</tr>"

    body = "".join(cells("td", row) for row in rows)
    return f'<div class="scroll"><table>{cells("th", heads)}{body}</table></div>'


def check_plot_path(path: Path, is_overwrite: bool) -> None:
    """Raise ConfigError unless `path` is an .html or .png file that may be written."""
    if path.suffix not in (".html", ".png"):
        raise ConfigError(f"{path}: a plot is an .html or a .png file.")
    check_file(path, force=is_overwrite)


def write_plot(
    path: Path, about: About, charts: Sequence[Chart], is_overwrite: bool = False
) -> None:
    """Write the charts to `path`.

    Raises:
        ConfigError: another suffix, or the file exists.
        EnvironmentUnfitError: a PNG without matplotlib.
    """
    check_plot_path(path, is_overwrite)
    is_png = path.suffix == ".png"
    content = png(about, charts) if is_png else page(about, plots(charts))
    write_file(path, content, force=is_overwrite)
