"""Pins what the images install, with digests: serve/deploy/lock/ from pyproject.toml, by uv."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "serve/deploy/lock"
UV = ("pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes")
PLAIN = ("--no-header", "--no-annotate", "--quiet", "--upgrade")


def pin(name: str, requirements: list[str], *options: str) -> None:
    """Write one list, for every Python from the package's oldest on."""
    command = [str(Path(sys.executable).with_name("uv")), *UV, *PLAIN, *options, "-"]
    command += ["-o", str(LOCK / f"{name}.txt")]
    subprocess.run(command, input="\n".join(requirements), text=True, check=True, cwd=ROOT)
    print(f"wrote {(LOCK / name).relative_to(ROOT)}.txt")


def main() -> None:
    """Write the three lists; what two of them name has one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    pin("serve", project["project"]["dependencies"] + extras["serve"] + extras["tracing"])
    pin("rtx-run", extras["rtx-run"], "-c", str(LOCK / "serve.txt"))
    pin("build", project["build-system"]["requires"])


if __name__ == "__main__":
    main()
