"""The commands of docs/guides/gpu-host.md, in the page's order."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from support.rehearsal.image import ROOT

PAGE = ROOT / "docs/guides/gpu-host.md"


@dataclass(frozen=True)
class Line:
    """One command, the step that it belongs to ("6a"), and the number of its block on the page."""

    step: str
    block: int
    text: str


def lines() -> list[Line]:
    """Return every command of every block; those before the first step are of step ""."""
    found, step, number = [], "", 0
    for part in re.split(r"^(?=#{2,3} )", PAGE.read_text(), flags=re.MULTILINE):
        if heading := re.match(r"#{2,3} (\d+[ab]?)\.? |## (When)", part):
            step = heading[1] or heading[2]
        for block in re.findall(r"^```bash\n(.*?)^```", part, re.MULTILINE | re.DOTALL):
            found += [Line(step, number, command) for command in commands(block)]
            number += 1
    return found


def commands(block: str) -> Iterator[str]:
    """Yield a block's commands; one goes on while a quote is open."""
    kept = ""
    for line in block.splitlines():
        kept = f"{kept}\n{line}" if kept else line
        try:
            shlex.split(kept, comments=True)
        except ValueError:
            continue
        yield kept
        kept = ""
    assert not kept, kept
