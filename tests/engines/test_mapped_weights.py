"""Weights that another process writes to while an engine has them mapped: an error, no answer."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.program.program import WEIGHTS_FILE as PACKED
from nemotrt.engines.graph.onnx_graph import WEIGHTS_FILE as EXTERNAL
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError

WEIGHTS = {"native": PACKED, "onnxruntime": EXTERNAL}


@pytest.fixture(scope="module", params=WEIGHTS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("built") / request.param
    build_engine(TINY_MODELS["tiny"], folder, BuildSpec(request.param, limits=Limits(1, 16, 8)))
    return folder


def logits(opened: OpenEngine) -> np.ndarray:
    slot = opened.engine.allocate()
    row = opened.engine.step([Feed(slot, [40, 41, 42])])[0].copy()
    opened.engine.release(slot)
    return row


def write_into(path: Path) -> None:
    numbers = np.frombuffer(path.read_bytes(), np.uint8)
    with path.open("r+b") as file:
        file.write(np.roll(numbers, 6464).tobytes())


def cut_within_a_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("change", [write_into, cut_within_a_page])
def test_weights_that_are_written_to_end_the_engine(
    built: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    shutil.copytree(built, tmp_path / "e")
    opened = open_engine(tmp_path / "e")
    logits(opened)
    change(tmp_path / "e" / WEIGHTS[built.name])
    with pytest.raises(ArtefactError, match="was written to while the engine had it open"):
        logits(opened)
    opened.engine.close()
    with pytest.raises(ArtefactError, match=WEIGHTS[built.name]):
        open_engine(tmp_path / "e")


def test_a_new_engine_in_its_place_changes_nothing(built: Path, tmp_path: Path) -> None:
    """As `build --force` puts one there: by a rename, with the old files unlinked."""
    shutil.copytree(built, tmp_path / "e")
    opened = open_engine(tmp_path / "e")
    before = logits(opened)
    path = tmp_path / "e" / WEIGHTS[built.name]
    shutil.copyfile(path, tmp_path / "new")
    write_into(tmp_path / "new")
    os.replace(tmp_path / "new", path)
    assert (logits(opened) == before).all()
    opened.engine.close()


def test_a_closed_engine_leaves_no_file_open(built: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    opened = open_engine(built)
    opened.engine.close()
    del opened
    assert set(os.listdir("/proc/self/fd")) <= before
