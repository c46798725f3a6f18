"""Engines of both CPU backends, of the tiny model."""

import shutil
from pathlib import Path

import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS

LIMITS = Limits(max_batch_size=3, max_seq_len=64, chunk_tokens=16)


@pytest.fixture(scope="module", params=["native", "onnxruntime"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target: Path = tmp_path_factory.mktemp(request.param) / "engine"
    build_engine(TINY_MODELS["tiny"], target, BuildSpec(request.param, limits=LIMITS))
    return target


@pytest.fixture
def engine(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, and a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(built, tmp_path / "engine"))
