"""`evaluate --keep`: the reference's run is computed once, and is the same to the last bit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.cli import main
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.tensor_names import Block
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.calibration.texts import nested_order, nested_windows
from nemotrt.quantize.quality import evaluate as quality
from nemotrt.quantize.quality.running.opened import Run, opened_block
from nemotrt.quantize.quality.running.pace import Pace, fitting_windows
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.writing.writer import quantize_checkpoint

TINY = TINY_MODELS["tiny"]
TOKENS = np.random.default_rng(0).integers(20, 4000, (12, 24))


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    quantize_checkpoint(TINY, tmp_path / "q", load_recipe("int8-wo"))
    return tmp_path / "q"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many sequences went through a block, by the checkpoint's folder."""
    counts: dict[str, int] = {}

    @contextmanager
    def counted(checkpoint: Checkpoint, block: Block, num_tokens: int) -> Iterator[Run]:
        with opened_block(checkpoint, block, num_tokens) as run:

            def count(hidden: Any) -> Any:
                counts[checkpoint.path.name] = counts.get(checkpoint.path.name, 0) + 1
                return run(hidden)

            yield count

    monkeypatch.setattr(quality, "opened_block", counted)
    return counts


def test_a_later_comparison_runs_the_candidate_alone(
    candidate: Path, ran: dict[str, int], tmp_path: Path
) -> None:
    """But for what is sampled of each text; windows that are new are computed and kept."""
    texts = {"x": TOKENS[:5], "y": TOKENS[5:9]}
    plain = quality.evaluate(TINY, candidate, texts)
    ran.clear()
    first = quality.evaluate(TINY, candidate, texts, keep=tmp_path / "kept")
    num_blocks = ran[TINY.name] // 9
    assert first == plain
    assert len(list((tmp_path / "kept").glob("*/*.f32"))) == 9
    ran.clear()
    more = {"x": TOKENS[:5], "y": TOKENS[5:12]}
    again = quality.evaluate(TINY, candidate, more, keep=tmp_path / "kept")
    num_sampled = sum(len(quality.sampled(range(len(rows)), 24)) for rows in more.values())
    assert ran[TINY.name] <= num_blocks * (num_sampled + 3)
    assert again == quality.evaluate(TINY, candidate, more)
    assert len(list((tmp_path / "kept").glob("*/*.f32"))) == 12
    assert not list((tmp_path / "kept").glob("*/*.partial*"))


def test_most_windows_are_spared(candidate: Path, ran: dict[str, int], tmp_path: Path) -> None:
    tokens = {"x": np.random.default_rng(1).integers(20, 4000, (6, 300))}
    quality.evaluate(TINY, candidate, tokens, keep=tmp_path / "kept")
    every = ran.pop(TINY.name)
    quality.evaluate(TINY, candidate, tokens, keep=tmp_path / "kept")
    assert ran[TINY.name] == every // 6  # the one whose insides are compared


def test_another_model_takes_nothing_and_damage_is_named(candidate: Path, tmp_path: Path) -> None:
    tokens = {"x": np.random.default_rng(1).integers(20, 4000, (3, 300))}
    quality.evaluate(TINY, candidate, tokens, keep=tmp_path / "kept")
    quality.evaluate(candidate, TINY, tokens, keep=tmp_path / "kept")
    folders = sorted((tmp_path / "kept").iterdir())
    assert [len(list(folder.iterdir())) for folder in folders] == [3, 3]
    for file in (tmp_path / "kept").glob("*/*.f32"):
        file.write_bytes(file.read_bytes()[:-40] + bytes(40))
    with pytest.raises(ArtefactError, match="is damaged; remove it"):
        quality.evaluate(TINY, candidate, tokens, keep=tmp_path / "kept")


def test_an_engine_has_none(tmp_path: Path) -> None:
    (tmp_path / "engine.json").write_text("{}")
    with pytest.raises(ConfigError, match="--keep is for checkpoints"):
        quality.evaluate(TINY, tmp_path, {"x": TOKENS}, keep=tmp_path / "kept")
    command = ["evaluate", "tiny", "--against", "tiny", "--tasks", "x", "--keep", str(tmp_path)]
    found = CliRunner().invoke(main, command)
    assert found.exit_code == 2 and "--keep" in found.output


@given(st.integers(1, 700), st.data())
def test_fewer_windows_are_among_more_and_spread(count: int, data: st.DataObject) -> None:
    order = nested_order(count)
    assert sorted(order) == list(range(count))
    few = data.draw(st.integers(1, count))
    chosen = sorted(order[:few])
    gaps = np.diff([*chosen, count])
    assert gaps.max() <= 2 * max(1, 2 ** (count.bit_length() - few.bit_length() + 1))
    rows = np.arange(count)[:, None]
    assert nested_windows(rows, few)[:, 0].tolist() == chosen
    assert nested_windows(rows, None) is rows


def test_the_time_is_that_of_what_is_not_kept() -> None:
    """By hand: 100 s once, 30 s for a window of the reference, 20 s of the candidate."""
    pace = Pace(100.0, 30.0, 20.0)
    assert fitting_windows(pace, 10, [(2, 0)] * 50) == 5  # 100 s each
    assert fitting_windows(pace, 10, [(2, 2)] * 50) == 12  # 40 s each
    assert fitting_windows(pace, 10, [(2, 2)] * 5 + [(2, 0)] * 45) == 8
    assert fitting_windows(pace, 10, [(2, 2)] * 3) == 3
    assert fitting_windows(pace, 2.6, [(2, 0)] * 3) == 1
    assert fitting_windows(pace, 2.1, [(2, 2)] * 3) == 1
    with pytest.raises(ConfigError, match=r"about 2\.5 minutes"):
        fitting_windows(pace, 2.1, [(2, 0)] * 3)
