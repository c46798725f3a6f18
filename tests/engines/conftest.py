"""Quantized tiny checkpoints, written by the package's own quantizer once a session."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotrt.cli import main

EXTRA = {"int8-sq": [], "int8-sq-unfolded": ["--no-fold"], "fp8": ["--kv-cache", "fp8"]}


@pytest.fixture(scope="session")
def quantized_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function: recipe (or "int8-sq-unfolded") -> a quantized tiny hybrid."""
    folder = tmp_path_factory.mktemp("quantized")

    def quantized(name: str) -> Path:
        target = folder / name
        if not target.exists():
            recipe = name.removesuffix("-unfolded")
            command = ["quantize", "tiny", "--recipe", recipe, "--format", "modelopt", "-q"]
            if name in EXTRA:
                command += ["--calibration", str(folder / "calibration"), *EXTRA[name]]
            result = CliRunner().invoke(main, [*command, "-o", str(target)])
            assert result.exit_code == 0, result.stderr
        return target

    return quantized
