"""`--dry-run` is on every command that writes an artefact or starts something that goes on.

Commands that print what they make (`serve compose`, `serve k8s`) are their own dry run. Commands
whose -o keeps what they print as a page (`evaluate`, `compare`, `report`, `check`) have none, nor
has `demo`, which is a walk through the others.
"""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from test_surface_commands import commands

WRITE_OR_START = {
    "build", "pack", "quantize", "plan model", "plan compare", "plan sweep", "profile run",
    "profile gpu", "profile miniature", "serve run", "serve front", "serve repo", "serve install",
}  # fmt: skip
PRINT = {"serve compose", "serve k8s"}
KEEP_A_PAGE = {
    "check", "compare", "demo", "evaluate", "profile compare", "profile report", "report"
}  # fmt: skip
LINES = {
    "profile gpu": "profile gpu -o OUT.csv",
    "profile gpu --serve": "profile gpu --serve 0",
    "profile miniature": "profile miniature -o OUT",
    "serve front": "serve front ENGINE --port 0",
    "serve install": "serve install --runtime OUT",
}


def test_what_writes_or_starts_has_a_dry_run() -> None:
    found, keeping = set(), set()
    for path, command in commands(main):
        name = path.removeprefix("nemotrt").strip()
        options = {option for param in command.params for option in param.opts}
        if isinstance(command, click.Group):
            continue
        if "--dry-run" in options:
            found.add(name)
        elif "--output" in options:
            keeping.add(name)
    assert found == WRITE_OR_START and keeping == KEEP_A_PAGE
    assert not PRINT & (found | keeping)


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_dry_run_writes_nothing(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_engine: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = line.replace("ENGINE", str(tiny_engine)).split()
    done = CliRunner().invoke(main, [*words, "--dry-run"])
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("would ") and not list(tmp_path.iterdir())
