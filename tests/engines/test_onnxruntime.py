"""The ONNX Runtime engine: slots, batches, cost, and what a freed slot leaves behind."""

import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.onnxruntime.engine import OnnxRuntimeEngine
from nemotrt.engines.backends.onnxruntime.options import OnnxRuntimeOptions
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.graph.onnx_graph import GRAPH_FILE, NUM_LOGITS
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.errors import ConfigError
from support import reference
from support.examples import up_to

LIMITS = Limits(max_batch_size=4, max_seq_len=64, chunk_tokens=16)
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=["nemotron_h", "qwen3"])
def model(request: pytest.FixtureRequest) -> object:
    return reference.nemotron_h("M-*M*-") if request.param == "nemotron_h" else reference.qwen3()


@pytest.fixture(scope="module")
def engine(model: object, tmp_path_factory: pytest.TempPathFactory) -> OnnxRuntimeEngine:
    folder = tmp_path_factory.mktemp("engine")
    checkpoint = reference.save(model, folder / "checkpoint")
    build_engine(checkpoint, folder / "e", BuildSpec(precision=Precision.FP32, limits=LIMITS))
    return OnnxRuntimeEngine(folder / "e", LIMITS, num_threads=1)


@given(data=st.data())
@settings(
    max_examples=up_to(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_schedule_gives_the_solo_logits(
    engine: OnnxRuntimeEngine, model: object, data: st.DataObject
) -> None:
    """Sequences come and go, in any order, chunking and company: each sees its own logits."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    live: list[tuple[int, list[int]]] = []  # (slot, prompt), oldest first
    try:
        for _ in range(data.draw(st.integers(2, 8))):
            if live and data.draw(st.booleans()):
                slot, _ = live.pop(data.draw(st.integers(0, len(live) - 1)))
                engine.release(slot)
            while len(live) < 4 and data.draw(st.booleans()):
                prompt = rng.integers(0, 96, int(rng.integers(1, 40))).tolist()
                live.append((engine.allocate(), prompt))
            feeds, prompts = [], []
            for slot, prompt in data.draw(st.permutations(live)):
                done = engine.held_tokens(slot)
                size = min(data.draw(st.sampled_from([0, 1, 1, 1, 5, 16])), len(prompt) - done)
                if size:
                    feeds.append(Feed(slot, prompt[done : done + size]))
                    prompts.append(prompt[: done + size])
            if not feeds:
                continue
            found = engine.step(feeds)
            for feed, prompt, row in zip(feeds, prompts, found, strict=True):
                assert engine.held_tokens(feed.slot) == len(prompt)
                expected = reference.logits(model, prompt)[-1]
                np.testing.assert_allclose(row, expected, atol=TOLERANCE, rtol=0)
    finally:
        for slot, _ in live:
            engine.release(slot)


@pytest.fixture(scope="module", params=["with rows", "one row a call"])
def rows_engine(
    model: object, engine: OnnxRuntimeEngine, request: pytest.FixtureRequest, tmp_path_factory: Any
) -> OnnxRuntimeEngine:
    """The engine, and one of an earlier version, whose graph gives the last token's row alone."""
    if request.param == "with rows":
        return engine
    folder = tmp_path_factory.mktemp("earlier")
    checkpoint = reference.save(model, folder / "checkpoint")
    build_engine(checkpoint, folder / "e", BuildSpec(precision=Precision.FP32, limits=LIMITS))
    path = folder / "e" / GRAPH_FILE
    proto = onnx.load(path, load_external_data=False)
    kept = [item for item in proto.graph.input if item.name != NUM_LOGITS]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    path.write_bytes(proto.SerializeToString())
    return OnnxRuntimeEngine(folder / "e", LIMITS, num_threads=1)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_each_token_of_a_piece_has_its_logits(
    rows_engine: OnnxRuntimeEngine, model: object, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(0, 96, int(rng.integers(1, 40))).tolist() for _ in range(4)]
    slots = [rows_engine.allocate() for _ in prompts]
    done = [0] * 4
    while live := [i for i in rng.permutation(4).tolist() if done[i] < len(prompts[i])]:
        feeds, expected = [], []
        for i in live:
            size = min(int(rng.integers(1, 17)), len(prompts[i]) - done[i])
            wanted = int(rng.integers(1, size + 1))
            feeds.append(Feed(slots[i], prompts[i][done[i] : done[i] + size], wanted))
            done[i] += size
            expected.append(reference.logits(model, prompts[i][: done[i]])[-wanted:])
        found = rows_engine.step(feeds)
        np.testing.assert_allclose(found, np.concatenate(expected), atol=TOLERANCE, rtol=0)
        assert [rows_engine.held_tokens(slots[i]) for i in live] == [done[i] for i in live]
    for slot in slots:
        rows_engine.release(slot)


@pytest.mark.parametrize("num_logits", [0, 4])
def test_more_rows_than_tokens_are_refused(engine: OnnxRuntimeEngine, num_logits: int) -> None:
    slot = engine.allocate()
    with pytest.raises(ConfigError, match="num_logits must be 1 to 3"):
        engine.step([Feed(slot, [1, 2, 3], num_logits)])
    assert engine.held_tokens(slot) == 0
    engine.release(slot)


def test_a_freed_slot_leaves_nothing_behind(engine: OnnxRuntimeEngine) -> None:
    """The next owner of a slot gets bit for bit what it gets in a new engine."""
    prompt = list(range(20, 30))
    slot = engine.allocate()
    clean = engine.step([Feed(slot, prompt)])
    engine.release(slot)
    for _ in range(2):
        dirty = [engine.allocate() for _ in range(4)]
        engine.step([Feed(s, list(range(16))) for s in dirty])
        engine.step([Feed(s, [s + 1]) for s in dirty])
        for s in dirty:
            engine.release(s)
        assert all(not state.array.any() for state in engine._states.buffers), "state remains"
        slot = engine.allocate()
        np.testing.assert_array_equal(engine.step([Feed(slot, prompt)]), clean)
        engine.release(slot)


def test_misuse_is_refused_and_changes_nothing(engine: OnnxRuntimeEngine) -> None:
    slot = engine.allocate()
    engine.step([Feed(slot, [1, 2, 3])])
    bad = [
        ([Feed(slot, [1]), Feed(slot, [2])], "twice"),
        ([Feed(slot, [])], "0 tokens"),
        ([Feed(slot, list(range(17)))], "17 tokens"),
        ([Feed(slot, [96])], "0 to 95"),
        ([Feed(slot, [-1])], "0 to 95"),
        ([Feed((slot + 1) % 4, [1])], "not allocated"),
    ]
    for feeds, message in bad:
        with pytest.raises(ConfigError, match=message):
            engine.step(feeds)
    assert engine.held_tokens(slot) == 3
    others = [engine.allocate() for _ in range(3)]
    with pytest.raises(ConfigError, match="in use"):
        engine.allocate()
    for _ in range(3):
        engine.step([Feed(slot, list(range(16)))])
    with pytest.raises(ConfigError, match="64"):
        engine.step([Feed(slot, list(range(14)))])
    for s in [slot, *others]:
        engine.release(s)
    with pytest.raises(ConfigError, match="not allocated"):
        engine.release(slot)


@pytest.mark.parametrize("architecture", ["nemotron_h", "qwen3"])
def test_cost_follows_held_tokens_not_the_maximum(architecture: str, tmp_path: Path) -> None:
    """A cache for 32k tokens that holds 100 costs about what a small cache costs."""
    model = reference.nemotron_h() if architecture == "nemotron_h" else reference.qwen3(4)
    checkpoint = reference.save(model, tmp_path / "c")

    def measure(max_seq_len: int) -> tuple[float, int]:
        limits = Limits(8, max_seq_len, 32)
        folder = tmp_path / f"e{max_seq_len}"
        build_engine(checkpoint, folder, BuildSpec(precision=Precision.FP32, limits=limits))
        engine = OnnxRuntimeEngine(folder, limits, num_threads=1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        slots = [engine.allocate() for _ in range(8)]
        for _ in range(3):
            engine.step([Feed(s, list(range(32))) for s in slots])
        steps = []
        for _ in range(20):
            start = time.process_time()
            engine.step([Feed(s, [5]) for s in slots])
            steps.append(time.process_time() - start)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        return min(steps), grown

    small_s, _ = measure(128)
    large_s, large_kib = measure(32768)
    cache_kib = 8 * 32768 * open_checkpoint(checkpoint).config.kv_elements_per_token * 4 // 1024
    assert large_s < 3 * small_s, f"{large_s / small_s:.1f} times the small cache's step"
    assert large_kib < cache_kib / 4, f"{large_kib} KiB resident of a {cache_kib} KiB cache"


def test_int8_weights_exact_and_fast(tmp_path: Path) -> None:
    """Exact: transformers with the dequantized weights. Fast: input rounding adds little."""
    import torch

    model = reference.nemotron_h(hidden_size=64, intermediate_size=128, mamba_head_dim=16)
    checkpoint = reference.save(model, tmp_path / "c")
    opened = open_checkpoint(checkpoint)
    tokens = list(range(16))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("_proj.weight"):
                codes, scale = LinearWeight(opened, name.replace("model.", "backbone.")).int8()
                assert np.abs(codes).max() == 127
                dequantized = codes.astype(np.float32) * scale[:, None]
                error = np.abs(dequantized - parameter.numpy())
                assert (error <= scale[:, None] / 2 * 1.0001).all(), "not the nearest code"
                parameter.copy_(torch.from_numpy(dequantized))
    expected = reference.logits(model, tokens)[-1]
    found = {}
    for is_exact in (True, False):
        folder = tmp_path / f"exact-{is_exact}"
        spec = BuildSpec(
            precision=Precision.INT8_WO, limits=LIMITS, options=OnnxRuntimeOptions(is_exact)
        )
        build_engine(checkpoint, folder, spec)
        engine = OnnxRuntimeEngine(folder, LIMITS, num_threads=1)
        found[is_exact] = engine.step([Feed(engine.allocate(), tokens)])[0]
    # the head and the embedding keep bfloat16, which these weights are exact in
    np.testing.assert_allclose(found[True], expected, atol=TOLERANCE, rtol=0)
    error = np.sqrt(np.mean((found[False] - expected) ** 2)) / expected.std()
    assert 0 < error < 0.1, f"fast int8 is off by {error:.3f} standard deviations (rms)"
