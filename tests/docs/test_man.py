"""Man pages: one for every command, in a form that man can read."""

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES: dict[str, str] = runpy.run_path(str(ROOT / "scripts/man.py"))["pages"]()


def test_every_command_has_a_page_with_its_options() -> None:
    text = (ROOT / "docs/reference/commands.md").read_text("utf-8")
    names = re.findall(r"^##+ (nemotrt.*)$", text, re.MULTILINE)
    assert {f"{name.replace(' ', '-')}.1" for name in names} == set(PAGES)
    for name, page in PAGES.items():
        assert page.startswith(".TH ") and ".SH NAME" in page and ".SH SYNOPSIS" in page, name
    assert r"\-\-prefix\-cache\-gib" in PAGES["nemotrt-serve-run.1"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("groff"), reason="no groff")
def test_groff_has_no_complaint() -> None:
    for name, page in PAGES.items():
        command = ["groff", "-man", "-Tutf8", "-ww"]
        done = subprocess.run(command, input=page, capture_output=True, text=True)
        assert done.returncode == 0 and "error" not in done.stderr, (name, done.stderr)
