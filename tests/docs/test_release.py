"""A release: one version everywhere, its notes, and a workflow that asks for both."""

import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RELEASE = runpy.run_path(str(ROOT / "scripts/release.py"))


def test_all_who_name_the_version_name_one() -> None:
    found = RELEASE["versions"](ROOT)
    assert len(set(found.values())) == 1 and len(found) == 4, found
    RELEASE["check"](ROOT, found["pyproject.toml"])
    with pytest.raises(SystemExit, match=r"the tag says 9\.9\.9, but pyproject"):
        RELEASE["check"](ROOT, "9.9.9")


def test_notes_are_the_releases_own() -> None:
    notes = RELEASE["notes"](ROOT, "0.2.0")
    assert notes.startswith("### ") and "## [" not in notes
    with pytest.raises(SystemExit, match=r"no release 9\.9\.9"):
        RELEASE["notes"](ROOT, "9.9.9")
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert text.index("## [Unreleased]") < text.index("## [0.2.0] - ")


def test_the_workflow_checks_the_tag_and_shows_each_wheel() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text("utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    assert set(jobs["release"]["needs"]) == {"version", "test", "wheels", "sdist"}
    for line in (
        "scripts/release.py check",
        "cibuildwheel",
        "auditwheel show",
        "--sdist",
        ".ci/run",
    ):
        assert line in text


def test_issue_forms_ask_for_the_check() -> None:
    forms = {path.stem: yaml.safe_load(path.read_text("utf-8"))
             for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")}  # fmt: skip
    assert {"fault", "gpu-result", "wish", "config"} == set(forms)
    asked = [one["id"] for one in forms["fault"]["body"]]
    assert "check" in asked and "doctor" in asked
    assert "nemotrt check --json" in str(forms["fault"])
