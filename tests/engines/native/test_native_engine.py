"""The native engine: equal to transformers, the same bits in any company, state in place."""

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.engine import PASS_TOKENS, NativeEngine, _pass_tokens
from nemotrt.engines.backends.native.library.library import InstructionSet, available_isas
from nemotrt.engines.backends.native.program.options import NativeOptions, StateFormat
from nemotrt.engines.backends.native.program.program import WEIGHTS_FILE, read_program
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.errors import ConfigError
from support import reference
from support.random_models import ODD, models

LIMITS = Limits(max_batch_size=4, max_seq_len=64, chunk_tokens=16)
TOLERANCE = 1e-4
INT8_RMS = 0.05  # of the logits' standard deviation
KERNELS = available_isas()

few = settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # no shrinking: models are small
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def build(
    model: Any, folder: Path, precision: Precision = Precision.FP32, limits: Limits = LIMITS
) -> Path:
    """Return a native engine directory of the model."""
    target = folder / f"{precision}-{limits.max_seq_len}"
    if not (folder / "c").exists():
        reference.save(model, folder / "c")
    build_engine(folder / "c", target, BuildSpec("native", precision=precision, limits=limits))
    return target


def feed_in_pieces(engine: NativeEngine, tokens: list[int], sizes: list[int]) -> list[np.ndarray]:
    """Return the logits after each piece of one sequence."""
    slot, found, done = engine.allocate(), [], 0
    for size in sizes:
        found.append(engine.step([Feed(slot, tokens[done : done + size])])[0].copy())
        done += size
    engine.release(slot)
    return found


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@given(data=st.data())
@few
def test_logits_equal_transformers(
    precision: Precision, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any model, pieces, threads and kernels: after each piece the logits are transformers'."""
    model = data.draw(models(ODD))
    engine = NativeEngine(
        build(model, tmp_path_factory.mktemp("m"), precision),
        LIMITS,
        data.draw(st.integers(1, 2)),
        data.draw(st.sampled_from(KERNELS)),
    )
    sizes = data.draw(st.lists(st.integers(1, 16), min_size=1, max_size=4))
    seed = data.draw(st.integers(0, 1000))
    tokens = np.random.default_rng(seed).integers(0, model.config.vocab_size, sum(sizes)).tolist()
    expected = reference.logits(model, tokens)
    for row, end in zip(feed_in_pieces(engine, tokens, sizes), np.cumsum(sizes), strict=True):
        np.testing.assert_allclose(row, expected[end - 1], atol=TOLERANCE, rtol=0)
    engine.close()


MODELS = {
    "nemotron_h": lambda: reference.nemotron_h("M-*M*-"),
    "qwen3": reference.qwen3,
    "experts": lambda: reference.nemotron_h("ME*E", moe_latent_size=20, n_group=2, topk_group=1),
}


@pytest.fixture(
    scope="module",
    params=["nemotron_h", "qwen3", pytest.param("experts", marks=pytest.mark.slow)],
)
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]()


@pytest.fixture(scope="module", params=[Precision.FP32, Precision.INT8_WO, Precision.INT4_WO])
def engine(model: Any, request: pytest.FixtureRequest, tmp_path_factory: Any) -> NativeEngine:
    return NativeEngine(build(model, tmp_path_factory.mktemp("e"), request.param), LIMITS, 2)


@given(seed=st.integers(0, 2**31))
@few
def test_company_and_pieces_change_no_bit(engine: NativeEngine, seed: int) -> None:
    """Sequences in any order, pieces and company: each ends with the bits that it has alone."""
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(0, 96, int(rng.integers(1, 40))).tolist() for _ in range(4)]
    alone = [feed_in_pieces(engine, prompt, [1] * len(prompt))[-1] for prompt in prompts]
    slots = [engine.allocate() for _ in prompts]
    done = [0] * 4
    while any(engine.held_tokens(slots[i]) < len(prompts[i]) for i in range(4)):
        feeds = {}
        for i in rng.permutation(4):
            size = min(int(rng.choice([0, 1, 1, 5, 16])), len(prompts[i]) - done[i])
            if size:
                feeds[i] = Feed(slots[i], prompts[i][done[i] : done[i] + size])
                done[i] += size
        if not feeds:
            continue
        for i, row in zip(feeds, engine.step(list(feeds.values())), strict=True):
            if done[i] == len(prompts[i]):
                np.testing.assert_array_equal(row, alone[i])
    for slot in slots:
        engine.release(slot)


@given(seed=st.integers(0, 2**31))
@few
def test_each_token_has_the_same_logits_in_any_piece(engine: NativeEngine, seed: int) -> None:
    """Rows of any number of a piece's last tokens are bit for bit those of single tokens."""
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(0, 96, int(rng.integers(1, 40))).tolist() for _ in range(4)]
    alone = [feed_in_pieces(engine, prompt, [1] * len(prompt)) for prompt in prompts]
    slots = [engine.allocate() for _ in prompts]
    done = [0] * 4
    while live := [i for i in range(4) if done[i] < len(prompts[i])]:
        feeds, expected = [], []
        for i in live:
            size = min(int(rng.integers(1, 17)), len(prompts[i]) - done[i])
            wanted = int(rng.integers(1, size + 1))
            feeds.append(Feed(slots[i], prompts[i][done[i] : done[i] + size], wanted))
            done[i] += size
            expected += alone[i][done[i] - wanted : done[i]]
        np.testing.assert_array_equal(engine.step(feeds), expected)
    for slot in slots:
        engine.release(slot)


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "depth"), [(4, 1, 32), (14, 2, 36), (3, 3, 68), (60, 1, 6)]
)
def test_long_attention_is_transformers_and_the_same_bits_in_any_piece(
    tmp_path: Path, heads: int, kv_heads: int, depth: int, kind: InstructionSet
) -> None:
    """Several blocks of keys, groups of heads that fill no tile, dims that fill no register."""
    limits = Limits(max_batch_size=3, max_seq_len=320, chunk_tokens=150)
    model = reference.qwen3(
        1, num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=depth
    )
    folder = build(model, tmp_path, limits=limits)
    rng = np.random.default_rng(heads)
    prompts = [rng.integers(0, 96, count).tolist() for count in (210, 131)]
    engine = NativeEngine(folder, limits, 1, kind)
    alone = [feed_in_pieces(engine, prompt, [1] * len(prompt)) for prompt in prompts]
    engine.close()
    for rows, prompt in zip(alone, prompts, strict=True):
        np.testing.assert_allclose(
            np.concatenate([row[None] for row in rows]),
            reference.logits(model, prompt),
            atol=TOLERANCE,
            rtol=0,
        )
    for threads, most in ((1, 150), (3, 40), (5, 9)):
        engine = NativeEngine(folder, limits, threads, kind)
        slots, done = [engine.allocate() for _ in prompts], [0, 0]
        while live := [i for i in range(2) if done[i] < len(prompts[i])]:
            feeds, expected = [], []
            for i in live:
                count = min(int(rng.integers(1, most + 1)), len(prompts[i]) - done[i])
                feeds.append(Feed(slots[i], prompts[i][done[i] : done[i] + count], count))
                expected += alone[i][done[i] : done[i] + count]
                done[i] += count
            np.testing.assert_array_equal(engine.step(feeds), expected)
        engine.close()


@pytest.mark.parametrize("kind", KERNELS)
def test_keys_split_among_threads_change_no_bit(tmp_path: Path, kind: InstructionSet) -> None:
    """Tokens around the ends of spans, alone and in chunks, on one thread and on many."""
    limits = Limits(max_batch_size=3, max_seq_len=2100, chunk_tokens=700)
    model = reference.qwen3(1, num_attention_heads=6, head_dim=20, max_position_embeddings=4096)
    folder = build(model, tmp_path, limits=limits)
    tokens = np.random.default_rng(5).integers(0, 96, 2060).tolist()
    found = []
    for threads, sizes in (
        (1, [700, 700, 660]),
        (1, [300, 700, 18, *[1] * 20, 700, 300, *[1] * 22]),
        (5, [700, 300, 18, *[1] * 12, *[2] * 4, 700, 300, *[1] * 22]),
        (16, [500, 500, *[3] * 18, 700, 280, *[1] * 26]),
    ):
        engine = NativeEngine(folder, limits, threads, kind)
        slot, company, done, rows = engine.allocate(), engine.allocate(), 0, []
        for size in sizes:
            feeds = [Feed(slot, tokens[done : done + size], size)]
            if size == 1 and done % 2 and threads == 5:  # one that holds far less
                feeds.append(Feed(company, [7]))
            rows.append(engine.step(feeds)[:size].copy())
            done += size
        assert done == len(tokens)
        found.append(np.concatenate(rows))
        engine.close()
    np.testing.assert_allclose(found[0], reference.logits(model, tokens), atol=TOLERANCE, rtol=0)
    for rows_of_one in found[1:]:
        np.testing.assert_array_equal(rows_of_one, found[0])


def test_rows_of_logits_in_several_passes(tmp_path: Path) -> None:
    """More rows than one pass holds, from sequences that begin within a pass."""
    limits = Limits(max_batch_size=3, max_seq_len=512, chunk_tokens=300)
    model = reference.nemotron_h("M*-")
    engine = NativeEngine(build(model, tmp_path, limits=limits), limits, 2)
    prompts = [[(7 * i + j) % 96 for j in range(n)] for i, n in enumerate((290, 3, 300))]
    wanted = [290, 1, 270]
    feeds = [Feed(engine.allocate(), p, n) for p, n in zip(prompts, wanted, strict=True)]
    rows = [reference.logits(model, p)[-n:] for p, n in zip(prompts, wanted, strict=True)]
    np.testing.assert_allclose(engine.step(feeds), np.concatenate(rows), atol=TOLERANCE, rtol=0)


def test_a_step_longer_than_the_working_memory_runs_in_passes(tmp_path: Path) -> None:
    limits = Limits(max_batch_size=3, max_seq_len=512, chunk_tokens=300)
    model = reference.nemotron_h("M*-")
    engine = NativeEngine(build(model, tmp_path, limits=limits), limits, 2)
    prompts = [[(7 * i + j) % 96 for j in range(n)] for i, n in enumerate((290, 3, 300))]
    slots = [engine.allocate() for _ in prompts]
    found = engine.step([Feed(s, p) for s, p in zip(slots, prompts, strict=True)])
    for row, prompt in zip(found, prompts, strict=True):
        expected = reference.logits(model, prompt)[-1]
        np.testing.assert_allclose(row, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("rows", "chunk"), [(1, 512), (8, 512), (32, 512), (4, 300), (3, 24)])
def test_a_chunk_beside_decodes_takes_no_more_passes_than_alone(rows: int, chunk: int) -> None:
    """What is left over would cost a pass of its own, with all weights read once more."""
    size = _pass_tokens(Limits(max_batch_size=rows, max_seq_len=1024, chunk_tokens=chunk))
    assert -(-(chunk + rows - 1) // size) == -(-chunk // size) <= -(-chunk // PASS_TOKENS)
    assert rows <= size <= rows * chunk


def test_a_freed_slot_leaves_nothing_behind(engine: NativeEngine) -> None:
    """The next owner gets bit for bit what it gets in a new engine."""
    prompt = list(range(20, 30))
    (clean,) = feed_in_pieces(engine, prompt, [10])
    slots = [engine.allocate() for _ in range(4)]
    engine.step([Feed(s, list(range(16))) for s in slots])
    for slot in slots:
        engine.release(slot)
    assert not any(state.array.any() for state in engine._states.buffers), "state remains"
    np.testing.assert_array_equal(feed_in_pieces(engine, prompt, [10])[0], clean)


def test_misuse_is_refused_and_changes_nothing(engine: NativeEngine) -> None:
    slot = engine.allocate()
    engine.step([Feed(slot, [1, 2, 3])])
    bad = [
        ([Feed(slot, [1]), Feed(slot, [2])], "twice"),
        ([Feed(slot, [])], "0 tokens"),
        ([Feed(slot, list(range(17)))], "17 tokens"),
        ([Feed(slot, [96])], "0 to 95"),
        ([Feed((slot + 1) % 4, [1])], "not allocated"),
    ]
    for feeds, message in bad:
        with pytest.raises(ConfigError, match=message):
            engine.step(feeds)
    assert engine.held_tokens(slot) == 3
    engine.release(slot)
    with pytest.raises(ConfigError, match="not allocated"):
        engine.release(slot)


def test_int8_is_close_and_the_kernels_agree(model: Any, tmp_path: Path) -> None:
    """Int8 weights with 16-bit inputs; the portable kernels sum the same integers."""
    folder = build(model, tmp_path, Precision.INT8_WO)
    tokens = list(range(16))
    expected = reference.logits(model, tokens)[-1]
    rows = []
    for kind in KERNELS:
        engine = NativeEngine(folder, LIMITS, 1, kind)
        rows += feed_in_pieces(engine, tokens, [16])
        engine.close()
    error = np.sqrt(np.mean((rows[0] - expected) ** 2)) / expected.std()
    assert 0 < error < INT8_RMS, f"int8 is off by {error:.3f} standard deviations (rms)"
    for row in rows[1:]:
        np.testing.assert_allclose(row, rows[0], atol=2e-3, rtol=0)


def test_time_step_limit_of_the_config_is_applied(tmp_path: Path) -> None:
    model = reference.nemotron_h("M-M")
    model.config.time_step_limit = [0.02, 0.4]
    engine = NativeEngine(build(model, tmp_path), LIMITS, 1)
    tokens = list(range(16))
    unlimited = reference.logits(model, tokens)[-1]
    expected = reference.logits(reference.without_clamp(model, (0.02, 0.4)), tokens)[-1]
    assert np.abs(unlimited - expected).max() > 100 * TOLERANCE, "the limit must matter"
    (found,) = feed_in_pieces(engine, tokens, [16])
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)


def test_a_16_bit_state_costs_little_and_changes_nothing_else(tmp_path: Path) -> None:
    """Half floats in every kernel; the same bits in any pieces, and an error far below a logit."""
    model = reference.nemotron_h("M-M*M-", ssm_state_size=20)
    reference.save(model, tmp_path / "c")
    spec = BuildSpec("native", limits=LIMITS, options=NativeOptions(StateFormat.FLOAT16))
    build_engine(tmp_path / "c", tmp_path / "e", spec)
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, 96, 60).tolist()
    expected = reference.logits(model, tokens)[-1]
    for kind in KERNELS:
        engine = NativeEngine(tmp_path / "e", LIMITS, 2, kind)
        assert engine._states.buffers[1].array.dtype == np.float16
        whole = feed_in_pieces(engine, tokens, [16, 16, 16, 12])[-1]
        np.testing.assert_array_equal(feed_in_pieces(engine, tokens, [1] * 60)[-1], whole)
        error = np.abs(whole - expected).max() / expected.std()
        assert 1e-6 < error < 5e-3, f"{kind.name}: {error:.2g} standard deviations"
        engine.close()


@pytest.mark.parametrize(
    ("kind", "storage", "bounds"),
    [(StateFormat.BFLOAT16, np.uint16, (1e-4, 1e-2)), (StateFormat.INT8, np.int8, (1e-3, 3e-2))],
)
def test_a_small_cache_costs_little_and_changes_nothing_else(
    tmp_path: Path, kind: StateFormat, storage: type, bounds: tuple[float, float]
) -> None:
    """In every kernel; the same bits in any pieces and threads, and an error far below a logit."""
    limits = Limits(max_batch_size=2, max_seq_len=1200, chunk_tokens=400)
    model = reference.qwen3(1, num_attention_heads=6, head_dim=36, max_position_embeddings=2048)
    reference.save(model, tmp_path / "c")
    spec = BuildSpec("native", limits=limits, options=NativeOptions(kv_cache=kind))
    build_engine(tmp_path / "c", tmp_path / "e", spec)
    tokens = np.random.default_rng(3).integers(0, 96, 1100).tolist()
    expected = reference.logits(model, tokens)[-1]
    for isa in KERNELS:
        engine = NativeEngine(tmp_path / "e", limits, 2, isa)
        assert engine._states.buffers[0].array.dtype == storage
        whole = feed_in_pieces(engine, tokens, [400, 400, 300])[-1]
        engine.close()
        engine = NativeEngine(tmp_path / "e", limits, 5, isa)
        pieces = feed_in_pieces(engine, tokens, [1, 130, 400, 400, 100, *[1] * 69])[-1]
        np.testing.assert_array_equal(pieces, whole)
        engine.close()
        error = np.abs(whole - expected).max() / expected.std()
        assert bounds[0] < error < bounds[1], f"{isa.name}: {error:.2g} standard deviations"


@pytest.mark.parametrize("value", [np.inf, np.nan, 0.0, 1e-42])
@pytest.mark.parametrize("kind", [StateFormat.BFLOAT16, StateFormat.INT8])
def test_a_small_cache_hides_no_fault(tmp_path: Path, kind: StateFormat, value: float) -> None:
    """Values that are not finite give logits that are not; those near zero give those of zeros."""
    reference.save(reference.qwen3(1), tmp_path / "c")
    spec = BuildSpec("native", limits=LIMITS, options=NativeOptions(kv_cache=kind))
    build_engine(tmp_path / "c", tmp_path / "e", spec)
    program = read_program(tmp_path / "e")
    weight = next(t for t in program.tensors if t.name.endswith("v_proj.weight"))
    with (tmp_path / "e" / WEIGHTS_FILE).open("r+b") as file:
        file.seek(weight.offset)
        size = weight.num_bytes // weight.kind.number.num_bytes
        file.write(np.full(size, value, weight.kind.number.numpy).tobytes())
    for isa in KERNELS:
        engine = NativeEngine(tmp_path / "e", LIMITS, 1, isa)
        (found,) = feed_in_pieces(engine, [1, 2, 3], [3])
        assert np.isfinite(found).all() == np.isfinite(value)
        engine.close()


def test_a_16_bit_state_is_for_the_native_backend(tmp_path: Path) -> None:
    reference.save(reference.nemotron_h("M"), tmp_path / "c")
    spec = BuildSpec(limits=LIMITS, options=NativeOptions(StateFormat.FLOAT16))
    with pytest.raises(ConfigError, match="--ssm-state is for backend native"):
        build_engine(tmp_path / "c", tmp_path / "e", spec)


def test_a_small_cache_is_for_models_that_attend(tmp_path: Path) -> None:
    reference.save(reference.nemotron_h("M-"), tmp_path / "c")
    spec = BuildSpec("native", limits=LIMITS, options=NativeOptions(kv_cache=StateFormat.INT8))
    with pytest.raises(ConfigError, match="--kv-cache is for models with attention layers"):
        build_engine(tmp_path / "c", tmp_path / "e", spec)


def test_memory_follows_held_tokens_not_the_maximum(tmp_path: Path) -> None:
    """A cache for 32k tokens that holds few costs little."""
    limits = Limits(8, 32768, 32)
    engine = NativeEngine(build(reference.qwen3(4), tmp_path, limits=limits), limits, 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slots = [engine.allocate() for _ in range(8)]
    for _ in range(3):
        engine.step([Feed(s, list(range(32))) for s in slots])
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    elements = open_checkpoint(tmp_path / "c").config.kv_elements_per_token
    cache_kib = 8 * 32768 * elements * 4 // 1024
    assert grown_kib < cache_kib / 4, f"{grown_kib} KiB resident of a {cache_kib} KiB cache"
