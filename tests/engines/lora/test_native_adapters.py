"""Several adapters at once on the native engine: PEFT's numbers, the same bits in any company."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.lora.adapter import open_adapter
from nemotrt.engines.checkpoint.lora.named import NamedAdapter
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.llm import LLM
from support import lora

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:peft")
TOKENS = [5, 100, 7, 9, 300, 3, 2, 44]
PRECISIONS = (Precision.FP32, Precision.BF16, Precision.INT8_WO, Precision.INT4_WO)
QUICK = {("tiny", Precision.INT8_WO), ("tiny-dense", Precision.FP32)}


def opened(engine: Path, base: Path, adapters: dict[str, Path], **how: Any) -> NativeEngine:
    config = open_checkpoint(base).config
    found = {name: open_adapter(path, config) for name, path in adapters.items()}
    return NativeEngine(engine, lora.LIMITS, 2, adapters=found, **how)


def slot_with(engine: NativeEngine, adapter: str) -> int:
    slot = engine.allocate()
    if adapter:
        engine.adapt(slot, adapter)
    return slot


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY_MODELS)
def test_logits_are_pefts(
    name: str, engines: Any, bases: dict[str, Path], adapters: dict[str, dict[str, Path]]
) -> None:
    own = adapters[name]
    found = every_logits(engines(name, Precision.FP32), bases[name], own)
    want = pefts_logits(lora.base_model(bases[name]), own)
    np.testing.assert_allclose(found, want, atol=1e-4 * np.abs(want[0]).max())
    assert np.abs(want[1] - want[0]).max() > 0.01 * np.abs(want[0]).max()


@pytest.mark.slow
def test_a_clamp_is_all_that_transformers_does_otherwise(
    bases: dict[str, Path], adapters: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    """transformers as it is clamps time steps; an engine with that clamp in its config agrees.

    Without it the base alone, of no adapter, differs by as much as each adapter's logits do.
    """
    own, base = adapters["tiny"], Path(shutil.copytree(bases["tiny"], tmp_path / "base"))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    limits = {m.time_step_limit for m in model.modules() if hasattr(m, "time_step_limit")}
    assert limits == {(model.config.time_step_min, np.inf)}
    want = pefts_logits(model, own)
    gaps = {}
    for low in (model.config.time_step_min, 0.0):
        config = json.loads((base / "config.json").read_text())
        config["time_step_limit"] = [low, 1e30]
        (base / "config.json").write_text(json.dumps(config))
        spec = BuildSpec("native", precision=Precision.FP32, limits=lora.LIMITS)
        build_engine(base, tmp_path / str(low), spec)
        gap = np.abs(every_logits(tmp_path / str(low), base, own) - want)
        gaps[low] = gap.max(axis=(1, 2)) / np.abs(want[0]).max()
    assert (gaps[model.config.time_step_min] < 1e-4).all(), gaps
    assert (gaps[0.0] > 3e-4).all() and gaps[0.0].max() < 10 * gaps[0.0][0], gaps


def every_logits(
    folder: Path, base: Path, own: dict[str, Path]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return [adapters, tokens, vocab] of one step; the first are without adapter."""
    engine = opened(folder, base, own)
    slots = [slot_with(engine, adapter) for adapter in ("", *own)]
    found = engine.step([Feed(slot, TOKENS, len(TOKENS)) for slot in slots])
    engine.close()
    return found.reshape(len(slots), len(TOKENS), -1)


def pefts_logits(model: Any, own: dict[str, Path]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the same of transformers' model with PEFT's adapters."""
    model, ids = lora.with_adapters(model, *own.values()), torch.tensor([TOKENS])
    with torch.no_grad(), model.disable_adapter():
        want = [model(ids).logits[0].numpy()]
    for number in range(len(own)):
        model.set_adapter(f"a{number}")
        with torch.no_grad():
            want.append(model(ids).logits[0].numpy())
    return np.stack(want)


def run_in_chunks(
    engine: NativeEngine, texts: dict[int, Sequence[int]], sizes: dict[int, int]
) -> dict[int, np.ndarray[Any, Any]]:
    """Feed slots together, each in chunks of its own size; return all rows of each."""
    rows: dict[int, list[Any]] = {slot: [] for slot in texts}
    done = dict.fromkeys(texts, 0)
    while live := [slot for slot in texts if done[slot] < len(texts[slot])]:
        feeds = []
        for slot in live:
            part = texts[slot][done[slot] : done[slot] + sizes[slot]]
            feeds.append(Feed(slot, part, len(part)))
            done[slot] += len(part)
        logits, row = engine.step(feeds), 0
        for feed in feeds:
            rows[feed.slot].append(logits[row : row + feed.num_logits])
            row += feed.num_logits
    return {slot: np.concatenate(own) for slot, own in rows.items()}


TEXT = st.lists(st.integers(0, 400), min_size=1, max_size=20)
SEQUENCE = st.tuples(st.sampled_from(["", "some", "every"]), TEXT, st.integers(1, 16))


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(name, precision, marks=() if (name, precision) in QUICK else pytest.mark.slow)
        for name in TINY_MODELS
        for precision in PRECISIONS
    ],
)
def test_a_sequences_bits_do_not_depend_on_its_company(
    name: str,
    precision: Precision,
    engines: Any,
    bases: dict[str, Path],
    adapters: dict[str, dict[str, Path]],
) -> None:
    folder = engines(name, precision)
    engine = opened(folder, bases[name], adapters[name])
    plain = NativeEngine(folder, lora.LIMITS, 1)

    @settings(max_examples=8)
    @given(st.lists(SEQUENCE, min_size=1, max_size=4))
    def check(sequences: list[tuple[str, list[int], int]]) -> None:
        slots = [slot_with(engine, adapter) for adapter, _, _ in sequences]
        texts = {slot: text for slot, (_, text, _) in zip(slots, sequences, strict=True)}
        sizes = {slot: size for slot, (_, _, size) in zip(slots, sequences, strict=True)}
        found = run_in_chunks(engine, texts, sizes)
        for slot in slots:
            engine.release(slot)
        for slot, (adapter, text, _) in zip(slots, sequences, strict=True):
            alone = engine if adapter else plain
            own = slot_with(alone, adapter)
            want = run_in_chunks(alone, {own: text}, {own: 16})[own]
            alone.release(own)
            np.testing.assert_array_equal(found[slot], want)

    check()
    engine.close()
    plain.close()


def test_a_freed_slot_has_no_adapter(
    engines: Any, bases: dict[str, Path], adapters: dict[str, dict[str, Path]]
) -> None:
    folder = engines("tiny", Precision.BF16)
    engine, plain = (
        opened(folder, bases["tiny"], adapters["tiny"]),
        NativeEngine(folder, lora.LIMITS, 1),
    )
    engine.release(slot_with(engine, "every"))
    found = engine.step([Feed(engine.allocate(), TOKENS)])
    np.testing.assert_array_equal(found, plain.step([Feed(plain.allocate(), TOKENS)]))
    assert list(engine.adapters) == ["some", "every"]
    assert engine.adapter_bytes > 0 == plain.adapter_bytes
    with pytest.raises(ConfigError, match="unknown adapter 'none'"):
        engine.adapt(0, "none")
    with pytest.raises(ConfigError, match="not allocated"):
        engine.adapt(3, "some")


def test_drafts_are_the_same_tokens(
    engines: Any, bases: dict[str, Path], adapters: dict[str, dict[str, Path]]
) -> None:
    folder = engines("tiny", Precision.INT8_WO)
    engine = opened(folder, bases["tiny"], adapters["tiny"], max_draft=4)
    sure, drafted = slot_with(engine, "every"), slot_with(engine, "every")
    want = [engine.step([Feed(sure, part, len(part))]) for part in (TOKENS[:4], TOKENS[4:])]
    engine.step([Feed(drafted, TOKENS[:2])])
    draft = engine.step([Feed(drafted, [*TOKENS[2:4], 9, 9], 4, is_draft=True)])
    np.testing.assert_array_equal(draft[:2], want[0][2:])
    engine.accept({drafted: 2})
    rest = engine.step([Feed(drafted, TOKENS[4:], len(TOKENS) - 4)])
    np.testing.assert_array_equal(rest, want[1])


def test_no_prefix_is_shared_across_adapters(
    adapters: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    folder = tmp_path / "engine"
    build_engine(TINY_MODELS["tiny"], folder, BuildSpec("native", limits=Limits(2, 256, 64)))
    named = tuple(NamedAdapter(name, path) for name, path in adapters["tiny"].items())
    made = open_engine(folder, OpenOptions(1, lora=named))
    scheduler = made.scheduler(kept_bytes=1 << 26)
    prompt = tuple(range(300, 348))  # no marks of a chat, whose answers return otherwise

    def run(prompt: tuple[int, ...], adapter: str, salt: str = "") -> tuple[int | None, Any]:
        params = SamplingParams(max_tokens=2)
        scheduler.submit(Request("r", prompt, params, salt=salt, adapter=adapter))
        updates = []
        while not scheduler.is_idle:
            updates += scheduler.step()
        tokens = tuple(token.id for update in updates for token in update.tokens)
        cached = next(u.cached_tokens for u in updates if u.cached_tokens is not None)
        return cached, (*prompt, *tokens, 7)  # the next turn's prompt

    cached, longer = run(prompt, "some")
    assert cached == 0
    for other in ("", "every"):
        cached, next_turn = run(longer, other)
        assert cached == 0
        cached, _ = run(next_turn, other)
        assert cached
    assert run(longer, "", "\0" + "4:some")[0] == 0
    assert run(longer, "some")[0]
    with pytest.raises(ConfigError, match="unknown adapter"):
        scheduler.submit(Request("x", (1,), adapter="other"))
    made.engine.close()


@given(st.text(max_size=3), st.text(max_size=3), st.text(max_size=3), st.text(max_size=3))
def test_a_pool_is_of_one_salt_and_one_adapter(a: str, b: str, salt: str, other: str) -> None:
    one = Request("1", (1,), salt=salt, adapter=a)
    two = Request("2", (1,), salt=other, adapter=b)
    assert (one.pool == two.pool) == ((a, salt) == (b, other))
    assert Request("3", (1,), salt="x").pool == "x"


def test_a_program_takes_adapters_by_name(
    engines: Any, adapters: dict[str, dict[str, Path]], tmp_path: Path
) -> None:
    folder = engines("tiny", Precision.FP32)
    with LLM(folder, lora=adapters["tiny"], quiet=True) as llm:
        params = SamplingParams(max_tokens=6)
        plain = llm.generate("Once upon", params)
        told = [llm.generate("Once upon", params, adapter=name) for name in adapters["tiny"]]
        assert len({answer.text for answer in (plain, *told)}) > 1
        with pytest.raises(ConfigError, match="unknown adapter"):
            llm.generate("Once upon", params, adapter="third")


@pytest.mark.slow
def test_what_only_a_merge_can_do_is_refused(
    engines: Any, bases: dict[str, Path], tmp_path: Path
) -> None:
    config = {"target_modules": ["q_proj"], "use_dora": True}
    dora = lora.save_adapter(bases["tiny"], tmp_path / "dora", **config)
    with pytest.raises(ConfigError, match=r"is a DoRA.*nemotrt build CHECKPOINT --lora"):
        opened(engines("tiny", Precision.FP32), bases["tiny"], {"dora": dora})
    other = tmp_path / "onnx"
    build_engine(bases["tiny"], other, BuildSpec("onnxruntime", limits=lora.LIMITS))
    named = OpenOptions(lora=(NamedAdapter("dora", dora),))
    with pytest.raises(ConfigError, match=r"is for engines of native.*nemotrt build"):
        open_engine(other, named)
    for twice in ((named.lora * 2), (NamedAdapter("dora", tmp_path), *named.lora)):
        with pytest.raises(ConfigError, match="two adapters are called dora"):
            OpenOptions(lora=twice)
    with pytest.raises(ConfigError, match="adapter name"):
        NamedAdapter("a:b", dora)
