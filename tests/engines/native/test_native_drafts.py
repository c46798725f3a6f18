"""Drafts on the native engine: whatever is guessed and accepted, the bits are those without."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.binding import run_accept
from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.backends.native.library.library import available_isas
from nemotrt.engines.backends.native.program.options import NativeOptions, StateFormat
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits, TakesDrafts
from nemotrt.errors import ConfigError
from support import reference

LIMITS = Limits(max_batch_size=3, max_seq_len=48, chunk_tokens=12)
MAX_DRAFT = 9
VOCAB = 96
KERNELS = available_isas()
MODELS = {
    "hybrid": lambda: reference.nemotron_h("M-*M*-"),
    "odd": lambda: reference.nemotron_h("MM*", mamba_head_dim=6, ssm_state_size=12, conv_kernel=3),
    "dense": reference.qwen3,
}
few = settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


SMALLER = NativeOptions(StateFormat.FLOAT16, StateFormat.INT8)


@pytest.fixture(scope="module", params=[*MODELS, "smaller"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Path:
    """Return an engine directory; of "smaller" the states are half floats, keys and values int8."""
    path = tmp_path_factory.mktemp("m")
    is_smaller = request.param == "smaller"
    reference.save(MODELS["hybrid" if is_smaller else request.param](), path / "c")
    own = SMALLER if is_smaller else NativeOptions()
    spec = BuildSpec("native", precision=Precision.INT8_WO, limits=LIMITS, options=own)
    build_engine(path / "c", path / "e", spec)
    return path / "e"


def saved(engine: NativeEngine, slot: int) -> list[np.ndarray]:
    state = engine.save(slot)
    return [*state.fixed.arrays, *(array for piece in state.caches for array in piece.arrays)]


def same(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@given(data=st.data())
@few
def test_drafts_change_no_bit(folder: Path, data: st.DataObject) -> None:
    """Guesses right and wrong, accepted in part, in company, beside chunks, saved and restored."""
    kernels, threads = data.draw(st.sampled_from(KERNELS)), data.draw(st.integers(1, 2))
    plain = NativeEngine(folder, LIMITS, 1, kernels)
    engine = NativeEngine(folder, LIMITS, threads, kernels, max_draft=MAX_DRAFT)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    texts = [rng.integers(0, VOCAB, 40).tolist() for _ in range(3)]
    rows, states = [], []  # after each token of each text, one token at a time
    for text in texts:
        slot = plain.allocate()
        rows.append([])
        states.append([])
        for token in text:
            rows[-1].append(plain.step([Feed(slot, [token])])[0].copy())
            states[-1].append(saved(plain, slot))
        plain.release(slot)
    slots = [engine.allocate() for _ in texts]
    while live := [i for i in range(3) if engine.held_tokens(slots[i]) < 40]:
        feeds: list[Feed] = []
        wanted: list[np.ndarray | None] = []
        counts: dict[int, int] = {}
        for i in live:
            held = engine.held_tokens(slots[i])
            size = min(int(rng.integers(1, MAX_DRAFT + 1)), 40 - held)
            what = rng.integers(0, 4)
            tokens = texts[i][held : held + size]
            if what == 3:
                continue
            if what == 0:
                feeds.append(Feed(slots[i], tokens))
                wanted.append(rows[i][held + size - 1])
                continue
            right = int(rng.integers(1, size + 1))
            tokens = tokens[:right] + [(token + 1) % VOCAB for token in tokens[right:]]
            feeds.append(Feed(slots[i], tokens, size, is_draft=True))
            wanted += [*rows[i][held : held + right], *[None] * (size - right)]
            if what == 1:  # else it is given up
                counts[slots[i]] = int(rng.integers(1, right + 1))
        if not feeds:
            continue
        for row, expected in zip(engine.step(feeds), wanted, strict=True):
            if expected is not None:
                np.testing.assert_array_equal(row, expected)
        if rng.integers(0, 2):  # a state that is saved before anything is accepted knows nothing
            for i in range(3):
                if held := engine.held_tokens(slots[i]):
                    same(saved(engine, slots[i]), states[i][held - 1])
        engine.accept(counts)
        for i in range(3):
            if (held := engine.held_tokens(slots[i])) and rng.integers(0, 3) == 0:
                same(saved(engine, slots[i]), states[i][held - 1])
                state = engine.save(slots[i])
                engine.release(slots[i])
                slots[i] = engine.allocate()
                engine.restore(slots[i], state.fixed, state.caches)
    for slot in slots:
        engine.step([Feed(slot, [1] * 5, 5, is_draft=True)])
        engine.release(slot)
    assert not any(buffer.array.any() for buffer in engine._states.buffers), "a slot is not empty"
    engine.close()
    plain.close()


@pytest.fixture
def small(folder: Path) -> Any:
    engine = NativeEngine(folder, LIMITS, 1, max_draft=4)
    yield engine
    engine.close()


def test_only_an_engine_opened_for_drafts_takes_them(folder: Path, small: NativeEngine) -> None:
    assert isinstance(small, TakesDrafts)
    slot = small.allocate()
    with pytest.raises(ConfigError, match="draft of 5 tokens; the engine takes at most 4"):
        small.step([Feed(slot, [1] * 5, 5, is_draft=True)])
    plain = NativeEngine(folder, LIMITS, 1)
    with pytest.raises(ConfigError, match="at most 0"):
        plain.step([Feed(plain.allocate(), [1, 2], 2, is_draft=True)])
    plain.close()


@pytest.mark.parametrize("count", [0, 4, -1])
def test_no_more_is_accepted_than_was_drafted(small: NativeEngine, count: int) -> None:
    slot = small.allocate()
    small.step([Feed(slot, [1, 2, 3], 3, is_draft=True)])
    with pytest.raises(ConfigError, match=f"slot 0 has a draft of 3 tokens, not {count}"):
        small.accept({slot: count})
    small.accept({slot: 2})
    assert small.held_tokens(slot) == 2
    with pytest.raises(ConfigError, match="a draft of 0 tokens"):
        small.accept({slot: 1})


@pytest.mark.parametrize("counts", [{0: 1}, {7: 1}, {-1: 1}, {}, {0: 0}])
def test_the_library_refuses_what_was_not_drafted(
    small: NativeEngine, counts: dict[int, int]
) -> None:
    small.step([Feed(small.allocate(), [1, 2])])
    with pytest.raises(ConfigError, match="can't accept a draft"):
        run_accept(small.team, counts)
