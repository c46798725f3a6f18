"""A bundle over the stand-in of TensorRT-LLM, and the CPU engine of the same checkpoint."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.tiny.models import TINY_MODELS
from support.llm_bundle import LIMITS
from support.other_world import World


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="package")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundle") / "b"
    build_engine(TINY_MODELS["tiny"], target, BuildSpec("tensorrt-llm", "a10g", limits=LIMITS))
    return target


@pytest.fixture(scope="package")
def opened(bundle: Path, world: World) -> Iterator[OpenEngine]:
    with world.chosen():  # not for longer: other folders' tests run before the fixture ends
        opened = open_engine(bundle)
    yield opened
    process = opened.engine.process  # type: ignore[attr-defined]
    opened.engine.close()
    assert process._last_words.lines()[-1] == "the stand-in is shut down"


@pytest.fixture(scope="package")
def cpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenEngine]:
    """The oracle: the same checkpoint on the CPU engine, by our own scheduler."""
    target = tmp_path_factory.mktemp("cpu") / "e"
    build_engine(TINY_MODELS["tiny"], target, BuildSpec(limits=LIMITS))
    opened = open_engine(target, OpenOptions(1))
    yield opened
    opened.engine.close()
