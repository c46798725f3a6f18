"""An environment of its own for the clients that the slow tests run: pyproject.toml's `clients`."""

import os
import subprocess
import tomllib
import venv
from pathlib import Path

VARIABLE = "NEMOTRT_TEST_CLIENTS"  # an environment that has them already
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def client_environment(folder: Path) -> Path:
    """Return the environment's `bin` folder; it is made in `folder` unless there is one."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named) / "bin"
    requirements = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["dependency-groups"]
    venv.create(folder, with_pip=True)
    command = [str(folder / "bin" / "pip"), "install", "--quiet", *requirements["clients"]]
    subprocess.run(command, check=True)
    return folder / "bin"
