"""Tiny models in float32, two adapters of each, and native engines of them."""

import functools
from pathlib import Path
from typing import Any

import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.tiny.models import TINY_MODELS
from support import lora

TARGETS = {"tiny": [*lora.HYBRID, "lm_head"], "tiny-dense": lora.DENSE}


@pytest.fixture(scope="package")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny models in float32."""
    folder = tmp_path_factory.mktemp("bases")
    return {name: lora.float32_copy(path, folder / name) for name, path in TINY_MODELS.items()}


@pytest.fixture(scope="package")
def adapters(
    bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Path]]:
    """Two of each model, of other ranks and other linears."""
    folder = tmp_path_factory.mktemp("adapters")
    found: dict[str, dict[str, Path]] = {}
    for name, base in bases.items():
        targets, size = TARGETS[name], 0.05
        some = {"target_modules": targets[:2], "r": 3, "seed": 1, "size": 4 * size}
        every = {"target_modules": targets, "r": 9, "seed": 2, "size": size}
        found[name] = {
            "some": lora.write_adapter(base, folder / f"{name}-some", **some),
            "every": lora.write_adapter(base, folder / f"{name}-every", **every),
        }
    return found


@pytest.fixture(scope="package")
def engines(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the engine directory of a model in a precision."""
    folder = tmp_path_factory.mktemp("engines")

    @functools.cache
    def build(name: str, precision: Precision) -> Path:
        target = folder / f"{name}-{precision}"
        build_engine(
            bases[name], target, BuildSpec("native", precision=precision, limits=lora.LIMITS)
        )
        return target

    return build
