"""A Python of its own whose packages are the stand-in of TensorRT-LLM, and none of ours."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nemotrt.engines.backends.tensorrt_llm.process.interpreter import PYTHON_VARIABLE

STAND_IN = Path(__file__).parent / "llm_api"


class World:
    """The Python, and the file that says what goes wrong in it."""

    def __init__(self, folder: Path) -> None:
        """Make a virtual environment without pip, with a path to the stand-in."""
        venv = folder / "venv"
        command = [sys.executable, "-m", "venv", "--without-pip", str(venv)]
        subprocess.run(command, check=True)
        [packages] = venv.glob("lib/python*/site-packages")
        (packages / "stand_in.pth").write_text(f"{STAND_IN}\n")
        self.python = venv / "bin" / "python"
        self.knobs_file = folder / "knobs.json"

    @contextmanager
    def chosen(self, version: str = "1.2.1", **more: str) -> Iterator[pytest.MonkeyPatch]:
        """Let bundles be opened with it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(PYTHON_VARIABLE, str(self.python))
            patch.setenv("STAND_IN_VERSION", version)
            patch.setenv("STAND_IN_PYTHON", sys.executable)
            patch.setenv("STAND_IN_KNOBS", str(self.knobs_file))
            for name, value in more.items():
                patch.setenv(name, value)
            yield patch

    @contextmanager
    def broken(self, **knobs: Any) -> Iterator[None]:
        """Let something go wrong."""
        self.knobs_file.write_text(json.dumps(knobs))
        try:
            yield
        finally:
            self.knobs_file.unlink()

    @property
    def num_aborted(self) -> int:
        """How many requests the LLM was asked to give up."""
        path = Path(f"{self.knobs_file}.aborted")
        return len(path.read_text().splitlines()) if path.exists() else 0
