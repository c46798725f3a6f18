"""Quantized tiny checkpoints, written by the package's own quantizer once a session."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS

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


@pytest.fixture(scope="session")
def compiled_tiny(
    quantized_tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """Return a function: precision, GPU -> the tiny hybrid's engine, compiled once a session."""
    folder = tmp_path_factory.mktemp("compiled")

    def compiled(precision: str, gpu: str) -> Path:
        target = folder / f"{precision}-{gpu}"
        if not target.exists():
            source = TINY_MODELS["tiny"] if precision == "bf16" else quantized_tiny(precision)
            spec = BuildSpec("tensorrt", gpu, limits=Limits(4, 64, 16))
            build_engine(source, target, spec)
        return target

    return compiled
