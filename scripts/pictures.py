"""Makes docs/pictures/: the report and the plan from real runs, and the two drawings.

Run with `make pictures`; it needs the system's Chromium. The runs take a minute.
"""

import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURES = Path(__file__).resolve().parent.parent / "docs/pictures"
NEMOTRT = (sys.executable, "-m", "nemotrt")
# What is shown: the page, and how much of it in CSS pixels.
PLAN = "plan nemotron-nano-9b-v2 --gpu a10g --isl 8192 --osl 16384 --baseline qwen3-8b --plot"
REPORT = "profile run engine --isl 64 --osl 64 -c 4 -n 64 --speculate off --on-busy repeat -o"
SHOTS = {"plan": (1000, 1165), "report": (1000, 700)}

# A drawing: boxes (id: column, row, title, words), and arrows between them with a word each.
Box = tuple[float, float, str, str]
LIFE: tuple[dict[str, Box], list[tuple[str, str, str]]] = (
    {
        "hub": (0, 0, "checkpoint", "Hugging Face folder"),
        "plan": (0, 1, "plan", "what fits, how fast"),
        "quantize": (1, 0, "quantize", "8 or 4 bits"),
        "evaluate": (1, 1, "evaluate", "what it costs"),
        "build": (2, 0, "build", "engine directory"),
        "pack": (2, 1, "pack", "engine + weights"),
        "serve": (3, 0, "serve", "Triton, OpenAI's API"),
        "generate": (3, 1, "generate, chat", "in this process"),
        "profile": (4, 0, "profile", "every token"),
        "compare": (4, 1, "compare", "the verdict"),
    },
    [
        ("hub", "quantize", ""), ("hub", "plan", "config"), ("quantize", "build", ""),
        ("quantize", "evaluate", ""), ("build", "serve", ""), ("build", "pack", ""),
        ("pack", "generate", ""), ("serve", "profile", ""), ("profile", "compare", ""),
    ],
)  # fmt: skip
PROCESSES: tuple[dict[str, Box], list[tuple[str, str, str]]] = (
    {
        "client": (0, 0, "client", "OpenAI, Anthropic, curl"),
        "front": (1, 0, "front", "HTTP :9000"),
        "triton": (2, 0, "tritonserver", ":8000 :8001 :8002"),
        "stub": (3, 0, "stub", "Triton's Python model"),
        "engine": (3, 1, "engine", "scheduler, backend"),
        "supervisor": (1, 1, "supervisor", "starts, watches, drains"),
    },
    [
        ("client", "front", "HTTP"), ("front", "triton", "gRPC"), ("triton", "stub", ""),
        ("stub", "engine", "Unix socket"), ("supervisor", "front", ""),
        ("supervisor", "engine", ""),
    ],
)  # fmt: skip
WIDTH, HEIGHT, PITCH_X, PITCH_Y, MARGIN = 176, 58, 216, 112, 10
STYLE = """\
svg { background: #fff; font-family: "Noto Sans", "DejaVu Sans", sans-serif; }
.box { fill: #e8f3f1; stroke: #00796b; } .title { font-size: 15px; font-weight: 600; fill: #111; }
.words { font-size: 12px; fill: #444; } .arrow { stroke: #555; fill: none; stroke-width: 1.5; }
.word { font-size: 11px; fill: #555; }"""


def drawing(boxes: dict[str, Box], arrows: list[tuple[str, str, str]], name: str) -> str:
    """Return boxes on a grid, joined by arrows, as SVG."""
    columns, rows = max(b[0] for b in boxes.values()), max(b[1] for b in boxes.values())
    width, height = (columns * PITCH_X + WIDTH + 2 * MARGIN), (rows * PITCH_Y + HEIGHT + 2 * MARGIN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'role="img" aria-label="{escape(name)}">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" markerWidth="9" markerHeight="8" refX="8" refY="4" '
        'orient="auto"><path d="M0 0 9 4 0 8z" fill="#555"/></marker></defs>',
    ]
    for start, end, word in arrows:
        (x0, y0), (x1, y1) = corner(boxes[start]), corner(boxes[end])
        if y0 == y1:
            points = (x0 + WIDTH, y0 + HEIGHT / 2, x1, y1 + HEIGHT / 2)
        elif x0 == x1:
            down = y1 > y0
            points = (x0 + WIDTH / 2, y0 + HEIGHT * down, x1 + WIDTH / 2, y1 + HEIGHT * (not down))
        else:
            points = (x0 + WIDTH, y0, x1, y1 + HEIGHT)
        ax, ay, bx, by = points
        parts.append(
            f'<path class="arrow" d="M{ax:g} {ay:g} L{bx:g} {by:g}" marker-end="url(#head)"/>'
        )
        if word:
            x, y, anchor = ((ax + bx) / 2, ay - 6, "middle") if ay == by else (
                ax + 6, (ay + by) / 2 + 4, "start")  # fmt: skip
            parts.append(
                f'<text class="word" x="{x:g}" y="{y:g}" text-anchor="{anchor}">'
                f"{escape(word)}</text>"
            )
    for box in boxes.values():
        x, y = corner(box)
        parts.append(
            f'<rect class="box" x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
            f'<text class="title" x="{x + WIDTH / 2:g}" y="{y + 25:g}" text-anchor="middle">'
            f'{escape(box[2])}</text><text class="words" x="{x + WIDTH / 2:g}" y="{y + 44:g}" '
            f'text-anchor="middle">{escape(box[3])}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


# Of what CI proves, and of what it can't: (left, right, is it proved).
BADGES = (
    ("Linux x86-64", "Python 3.11 to 3.13", True),
    ("tested against", "transformers", True),
    ("types", "mypy strict", True),
    ("GPU", "not executed", False),
    ("licence", "Apache-2.0", True),
)


def badges() -> str:
    """Return one line of badges as SVG."""
    parts, x = [], 0.0
    for left, right, is_proved in BADGES:
        a, b = 7.1 * len(left) + 14, 7.1 * len(right) + 14
        colour = "#00796b" if is_proved else "#8a8f98"
        parts.append(
            f'<rect x="{x:g}" width="{a:g}" height="20" fill="#444"/>'
            f'<rect x="{x + a:g}" width="{b:g}" height="20" fill="{colour}"/>'
            f'<text x="{x + a / 2:g}" y="14">{left}</text>'
            f'<text x="{x + a + b / 2:g}" y="14">{right}</text>'
        )
        x += a + b + 8
    style = 'font-family="DejaVu Sans,Verdana,sans-serif" font-size="11" text-anchor="middle"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{x - 8:g}" height="20" fill="#fff" '
    return "\n".join([f'{head}role="img" {style}>', *parts, "</svg>\n"])


def corner(box: Box) -> tuple[float, float]:
    """Return a box's upper left corner."""
    return box[0] * PITCH_X + MARGIN, box[1] * PITCH_Y + MARGIN


def drawings() -> dict[str, str]:
    """Return the drawings by file name; a test holds the files to them."""
    return {
        "life.svg": drawing(*LIFE, "The life of a checkpoint"),
        "badges.svg": badges(),
        "processes.svg": drawing(*PROCESSES, "The processes of a server"),
    }


def nemotrt(words: str, target: str, folder: Path) -> None:
    """Run a command in the folder."""
    subprocess.run([*NEMOTRT, *words.split(), target], cwd=folder, check=True)


def main() -> None:
    """Write every picture."""
    for name, text in drawings().items():
        (PICTURES / name).write_text(text, encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        nemotrt(PLAN, "plan.html", folder)
        nemotrt("build tiny -o", "engine", folder)
        nemotrt(REPORT, "run", folder)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        pages = {"plan": folder / "plan.html", "report": folder / "run/report.html"}
        for name, path in pages.items():
            width, height = SHOTS[name]
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(path.as_uri())
            page.screenshot(path=str(PICTURES / f"{name}.png"))
        browser.close()


if __name__ == "__main__":
    main()
