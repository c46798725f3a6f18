"""Holds a release's version to all who name it, and takes its notes from CHANGELOG.

usage: release.py check VERSION | release.py notes VERSION
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHART = "serve/deploy/chart/Chart.yaml"


def versions(root: Path) -> dict[str, str]:
    """Return the version that each file names; CHANGELOG's is its newest release."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    chart = dict(re.findall(r"^(version|appVersion): (\S+)$", (root / CHART).read_text(), re.M))
    newest = re.search(r"^## \[(\d\S*)\] - \d{4}-\d\d-\d\d$", changelog(root), re.M)
    return {
        "pyproject.toml": project["version"],
        **{f"{CHART}, {key}": value for key, value in chart.items()},
        "CHANGELOG.md": newest[1] if newest else "none",
    }


def changelog(root: Path) -> str:
    """Return the changelog's text."""
    return (root / "CHANGELOG.md").read_text(encoding="utf-8")


def notes(root: Path, version: str) -> str:
    """Return what CHANGELOG says of a release."""
    head = rf"^## \[{re.escape(version)}\] - .*$"
    parts = re.split(head, changelog(root), maxsplit=1, flags=re.M)
    if len(parts) != 2:
        raise SystemExit(f"CHANGELOG.md has no release {version}.")
    return re.split(r"^## \[", parts[1], maxsplit=1, flags=re.M)[0].strip() + "\n"


def check(root: Path, version: str) -> None:
    """End with code 1 unless every file names that version."""
    others = [f"{name} says {found}" for name, found in versions(root).items() if found != version]
    if others:
        raise SystemExit(f"the tag says {version}, but {'; '.join(others)}.")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["check", version]:
            check(ROOT, version)
        case ["notes", version]:
            sys.stdout.write(notes(ROOT, version))
        case _:
            raise SystemExit(__doc__)
