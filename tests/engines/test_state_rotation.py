"""One spare state that rotates through the layers: proven, run in any order, and refused."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.test_tensorrt_engine import (
    LIMITS,
    open_on_stand_in,
    relative_error,
    write_engine,
)

from nemotrt.build import engine_builder
from nemotrt.cli import main
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt.compile.layer_check import LAYERS_FILE
from nemotrt.engines.backends.tensorrt.compile.layer_report import LayerReport, read_report
from nemotrt.engines.backends.tensorrt.compile.state_proof import state_layout
from nemotrt.engines.backends.tensorrt.graph.export import FED
from nemotrt.engines.backends.tensorrt.run import device_state
from nemotrt.engines.backends.tensorrt.run.device_state import DeviceStates
from nemotrt.engines.backends.tensorrt.run.device_state import state_layout as layout_of
from nemotrt.engines.backends.tensorrt.run.engine import TensorRTEngine
from nemotrt.engines.backends.tensorrt.run.state_tensors import StateTensor
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.engines.runtime.engine import Feed
from nemotrt.errors import ArtefactError
from nemotrt.files.text_file import read_json
from nemotrt.inspection import plan_rows
from nemotrt.profiles.planning.memory.request_memory import request_memory
from nemotrt.profiles.planning.sources.known_models import load_model
from nemotrt.profiles.planning.time.engine_profile import load_engine
from support import reference
from support.any_order import KINDS, AnyOrder, random_order
from support.kept_steps import check_goes_on

NUM_LAYERS = 3  # so the rotation's period is 4
ROTATING, TWO_SIDES = StateLayout.ROTATING, StateLayout.TWO_SIDES


@pytest.fixture(scope="module")
def model() -> Any:
    return reference.nemotron_h("MM*-M")


@pytest.fixture(scope="module")
def source(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference.save(model, tmp_path_factory.mktemp("any-order") / "c")


@pytest.fixture
def opened(source: Path, tmp_path: Path) -> Callable[..., tuple[TensorRTEngine, AnyOrder]]:
    """Return a function that opens the engine over kernels in any order."""
    numbers = itertools.count()

    def make(layout: StateLayout = ROTATING, **how: Any) -> tuple[TensorRTEngine, AnyOrder]:
        folder = tmp_path / f"e{next(numbers)}"
        engine, trt = open_on_stand_in(
            source, folder, flavour=partial(AnyOrder, **how), layout=layout
        )
        assert isinstance(trt, AnyOrder)
        return engine, trt

    return make


def inputs_of(report: LayerReport) -> set[str]:
    """What a plan's kernels read that none of them writes, but for the states."""
    kernels = [*report.kernels(0), *report.kernels(1)]
    written = {tensor.name for kernel in kernels for tensor in kernel.outputs}
    read = {tensor.name for kernel in kernels for tensor in kernel.inputs}
    return {name for name in read - written if not name.startswith(KINDS)}


def random_schedule(
    engine: TensorRTEngine, model: Any, rng: np.random.Generator
) -> tuple[float, list[np.ndarray]]:
    """Run sequences that come and go.

    Return the largest error against transformers, and each step's logits.
    """
    live: dict[int, list[int]] = {}
    worst, every = 0.0, []

    def check(slot: int, logits: np.ndarray) -> float:
        return relative_error(logits, reference.logits(model, live[slot])[-1])

    for _ in range(40):
        if live and rng.random() < 0.15:
            slot = int(rng.choice(sorted(live)))
            del live[slot]
            engine.release(slot)
        while len(live) < LIMITS.max_batch_size and rng.random() < 0.5:
            live[engine.allocate()] = []
        feeds = []
        for slot in map(int, rng.permutation(sorted(live))):
            count = int(rng.choice([1, 1, 1, 1, 2, 7, 16]))
            if rng.random() < 0.85 and len(live[slot]) + count <= LIMITS.max_seq_len:
                feeds.append(Feed(slot, [int(t) for t in rng.integers(0, 96, count)]))
        if feeds:
            every.append(engine.step(feeds).copy())
            for feed, logits in zip(feeds, every[-1], strict=True):
                live[feed.slot] += feed.tokens
                if rng.random() < 0.3:
                    worst = max(worst, check(feed.slot, logits))
    return worst, every


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]
)
def test_any_schedule_in_any_order_gives_the_reference_logits(
    seed: int, opened: Any, model: Any
) -> None:
    """Admission, release, chunks, mixed steps and decode, over the rotation's period many times.

    Where states lie changes nothing: each logit is the same with two sides, to the bit.
    """
    found = []
    for layout in (ROTATING, TWO_SIDES):
        engine, trt = opened(layout, seed=seed + len(found))
        worst, logits = random_schedule(engine, model, np.random.default_rng(seed))
        assert worst < 2e-2
        assert trt.num_executions > 40 and trt.cuda.num_launches > 0
        found.append(logits)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_steps_in_a_row_that_nobody_waits_for(opened: Any, model: Any) -> None:
    """All is enqueued before any of it is done: prompts, decodes, a release, who comes after."""
    engine, trt = opened()
    rng, slots = np.random.default_rng(0), [engine.allocate() for _ in range(3)]
    held: dict[int, list[int]] = {slot: [] for slot in slots}

    def enqueue(counts: dict[int, int]) -> dict[int, int]:
        feeds = [Feed(s, [int(t) for t in rng.integers(0, 96, n)]) for s, n in counts.items()]
        for feed in feeds:
            held[feed.slot] += feed.tokens
        return dict(zip(counts, engine.enqueue(feeds), strict=True))

    enqueue(dict.fromkeys(slots, 5))
    for step in range(2 * NUM_LAYERS):
        enqueue({slots[0]: 1, slots[1]: 1, slots[2]: 7 if step == 1 else 1})
        if step == NUM_LAYERS:
            engine.release(slots[1])
            assert engine.allocate() == slots[1]
            held[slots[1]] = []
    rows = enqueue(dict.fromkeys(slots, 1))
    assert len(trt.cuda.queue) > 10  # three batches, as many as wait for their inputs at once
    found = engine.fetch([rows[slot] for slot in slots])
    for slot, logits in zip(slots, found, strict=True):
        assert relative_error(logits, reference.logits(model, held[slot])[-1]) < 2e-2


@pytest.mark.parametrize("layout", [ROTATING, TWO_SIDES])
def test_kept_states_go_on(layout: StateLayout, opened: Any) -> None:
    engine, trt = opened(layout)
    check_goes_on(engine)
    assert trt.num_executions > 20


def test_decode_alone_over_three_periods(opened: Any, model: Any) -> None:
    """A graph for each phase; each is captured in the second round and launched in the third."""
    engine, trt = opened()
    rng, slots = np.random.default_rng(0), [engine.allocate() for _ in range(3)]
    fed = {slot: [int(t) for t in rng.integers(0, 96, 5)] for slot in slots}
    engine.step([Feed(slot, tokens) for slot, tokens in fed.items()])
    for _ in range(3 * (NUM_LAYERS + 1)):
        tokens = {slot: int(rng.integers(0, 96)) for slot in slots}
        found = engine.step([Feed(slot, [token]) for slot, token in tokens.items()])
        for slot, logits in zip(slots, found, strict=True):
            fed[slot].append(tokens[slot])
            assert relative_error(logits, reference.logits(model, fed[slot])[-1]) < 2e-2
    assert len(trt.cuda.graphs) == trt.cuda.num_launches == NUM_LAYERS + 1


@pytest.mark.parametrize(
    "buffer",
    [
        lambda self, layer, num, phase: (layer + phase) % (num + 1),  # over the next layer's
        lambda self, layer, num, phase: layer % (num + 1),  # in place
        lambda self, layer, num, phase: (layer - phase) % num,  # without a spare
    ],
)
def test_a_wrong_rotation_shows(
    buffer: Callable[..., int], opened: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state is read after it is overwritten, in some order; or the binding is refused."""
    original = StateLayout.buffer

    def patched(self: StateLayout, layer: int, num: int, phase: int) -> int:
        return (
            buffer(self, layer, num, phase)
            if self is ROTATING
            else original(self, layer, num, phase)
        )

    monkeypatch.setattr(StateLayout, "buffer", patched)
    try:
        worst = worst_of_decode(opened, model)
    except AssertionError as refused:
        worst = np.inf
        assert "ssm_out_" in str(refused) or "conv_out_" in str(refused)
    assert worst > 0.1


def worst_of_decode(opened: Any, model: Any, **how: Any) -> float:
    """Return the largest error of some decode steps, in a few random orders."""
    worst = 0.0
    for seed in range(2):
        engine, _ = opened(seed=seed, **how)
        slot, tokens = engine.allocate(), [5, 9, 11]
        engine.step([Feed(slot, tokens)])
        for token in range(20, 20 + 2 * (NUM_LAYERS + 1)):
            found = engine.step([Feed(slot, [token])])[0]
            tokens.append(token)
            error = relative_error(found, reference.logits(model, tokens)[-1])
            worst = max(worst, np.inf if np.isnan(error) else error)
    return worst


def test_what_the_proof_refuses_goes_wrong(opened: Any, model: Any) -> None:
    """Kernels that read a state and write it apart, as in prompt calls: refused, and rightly."""
    _, fused = opened()
    assert state_layout(fused.report, NUM_LAYERS, inputs_of(fused.report)) == (ROTATING, "")
    engine, apart = opened(TWO_SIDES, is_fused=False)
    layout, reason = state_layout(apart.report, NUM_LAYERS, inputs_of(apart.report))
    assert layout is TWO_SIDES and "may still run when ssm_out_1 is written" in reason
    assert worst_of_decode(opened, model, is_fused=False) > 0.1  # had it rotated all the same
    assert random_schedule(engine, model, np.random.default_rng(1))[0] < 2e-2


# Where states lie


@settings(deadline=None)
@given(st.sampled_from(StateLayout), st.integers(1, 30), st.integers(0, 100))
def test_a_step_writes_over_the_layer_before_alone(
    layout: StateLayout, layers: int, phase: int
) -> None:
    """Buffers are each layer's own, and all come round; only a spare that rotates meets another."""
    now, after, whole = (
        [layout.buffer(layer, layers, p) for layer in range(layers)]
        for p in (phase, phase + 1, phase + layout.period(layers))
    )
    assert now == whole and len({*now}) == len({*after}) == layers
    assert {*now, *after} <= set(range(layout.buffers(layers)))
    for layer, target in enumerate(after):
        read_by = [other for other in range(layers) if now[other] == target]
        expected = {
            StateLayout.IN_PLACE: [layer],
            StateLayout.ROTATING: [layer - 1] if layer else [],
            StateLayout.TWO_SIDES: [],
        }
        assert read_by == expected[layout]


@pytest.mark.parametrize("layout", [*StateLayout])
def test_the_planner_counts_what_the_runtime_allocates(layout: StateLayout) -> None:
    """Of the 9B, 7 sequences with chunks of 128 tokens: four of a call."""
    config, rows = load_model("nemotron-nano-9b-v2"), 7
    mamba = config.mamba
    assert mamba is not None
    sizes = {
        "conv": (mamba.conv_kernel - 1) * mamba.conv_dim * 2,
        "ssm": mamba.num_heads * mamba.head_dim * mamba.state_size * 4,
    }
    layers = range(config.num_mamba_layers)
    tensors = [
        StateTensor(kind, layer, (size,), 1) for kind, size in sizes.items() for layer in layers
    ]
    memory, scratch_rows = Memory(), layout.scratch_rows(rows, 128)
    start = memory.end
    DeviceStates(memory, tensors, rows, layout, scratch_rows)  # type: ignore[arg-type]
    engine = load_engine("tensorrt").model_copy(update={"states": layout})
    request = request_memory(config, engine, NumberFormat.BF16, NumberFormat.FP32)
    planned = rows * request.total_bytes(0) + scratch_rows * request.own_state_bytes
    row_of_a_swap = 0 if scratch_rows else sizes["ssm"]
    assert memory.end - start - row_of_a_swap == pytest.approx(planned, abs=rows)
    assert scratch_rows == (4 if layout is ROTATING else 0)


# Real reports


def orders(report: LayerReport, rng: np.random.Generator) -> list[int]:
    """Return a random order of the decode kernels that their tensors allow."""
    kernels = report.kernels(0)
    writer = {t.name: i for i, kernel in enumerate(kernels) for t in kernel.outputs}
    waits = [
        {writer[t.name] for t in kernel.inputs if t.name in writer} - {number}
        for number, kernel in enumerate(kernels)
    ]
    return random_order(waits, rng)


def overwritten(report: LayerReport, seed: int) -> int:
    """Run a real plan's kernels over named states; return how many read a state too late.

    The addresses are the runtime's own, over two periods.
    """
    kernels, rng = report.kernels(0), np.random.default_rng(seed)
    layers = sum(1 for name in {t.name for k in kernels for t in k.inputs}
                 if name.startswith("ssm_") and "_out_" not in name)  # fmt: skip
    tensors = [StateTensor(kind, layer, (16,), 1) for kind in KINDS for layer in range(layers)]
    states = DeviceStates(Memory(), tensors, 2, ROTATING, 1)  # type: ignore[arg-type]
    held = {}
    faults = 0
    for step in range(2 * (layers + 1)):
        _, places = states.bindings(range(2), is_prompt=False)
        for tensor in tensors:
            if step == 0:
                held[places[tensor.name]] = (tensor.name, 0)
        for number in orders(report, rng):
            for tensor in kernels[number].inputs:
                if tensor.name.startswith(KINDS) and tensor.name in places:
                    faults += held.get(places[tensor.name]) != (tensor.name, step)
            for tensor in kernels[number].outputs:
                if tensor.name in places:
                    name = tensor.name.replace("_out_", "_")
                    held[places[tensor.name]] = (name, step + 1)
        states.written(range(2), is_prompt=False)
    return faults


class Memory:
    """Cuda, as far as addresses go."""

    def __init__(self) -> None:
        self.end = 4096

    def allocate(self, num_bytes: int) -> Any:
        found = device_state.DeviceBuffer(self.end, num_bytes)
        self.end += num_bytes
        return found

    def zero(self, target: int, num_bytes: int) -> None:
        pass


def without(report: LayerReport, name: str) -> LayerReport:
    """Return a falsified report, in which no kernel is said to read a tensor."""
    layers = tuple(
        replace(layer, inputs=tuple(t for t in layer.inputs if t.name != name))
        for layer in report.layers
    )
    return replace(report, layers=layers)


def test_the_real_report_proves_it(compiled_tiny: Callable[[str, str], Path]) -> None:
    """Kernels of a compiled plan, in random orders; then without what the proof rests upon."""
    report = read_report(read_json(compiled_tiny("bf16", "a100") / LAYERS_FILE))
    inputs, layers = inputs_of(report), 4
    assert state_layout(report, layers, inputs) == (ROTATING, "")
    assert not any(overwritten(report, seed) for seed in range(3))
    kernels = report.kernels(0)
    (writer,) = (k for k in kernels if any(t.name == "ssm_out_1" for t in k.outputs))
    for tensor in writer.inputs:
        if tensor.name.startswith("ssm_1") or tensor.name in inputs:
            continue
        false = without(report, tensor.name)
        if state_layout(false, layers, inputs)[0] is ROTATING:
            assert not overwritten(false, 0)
    prompt = replace(
        report, layers=tuple(replace(layer, profile=1 - layer.profile) for layer in report.layers)
    )
    layout, reason = state_layout(prompt, layers, inputs)
    assert layout is TWO_SIDES and "ssm_0 may still run" in reason
    assert overwritten(prompt, 0)


def test_reports_that_say_too_little_prove_nothing(
    compiled_tiny: Callable[[str, str], Path],
) -> None:
    report = read_report(read_json(compiled_tiny("bf16", "a100") / LAYERS_FILE))
    inputs = inputs_of(report)

    def reason(report: LayerReport, inputs: set[str] = inputs) -> str:
        layout, why = state_layout(report, 4, inputs)
        assert layout is TWO_SIDES
        return why

    assert "no kernels" in reason(LayerReport((), ()))
    assert "ssm_2" in reason(without(report, "ssm_2"))
    assert "which no kernel writes" in reason(report, inputs - set(FED))
    twice = [layer for layer in report.layers if any(t.name == "ssm_0" for t in layer.inputs)]
    assert "may still run" in reason(replace(report, layers=(*report.layers, *twice)))
    (state,) = {t for k in report.kernels(0) for t in k.outputs if t.name == "ssm_out_1"}
    grown = tuple(
        replace(layer, inputs=(*layer.inputs[:-1], replace(layer.inputs[-1], shape=state.shape)))
        if state in layer.outputs
        else layer
        for layer in report.layers
    )
    assert "is as large as ssm_out_1" in reason(replace(report, layers=grown))
    state_alone = state_layout(report, 3, inputs)
    assert state_alone[0] is TWO_SIDES  # ssm_3 is then of unknown origin


def test_a_manifest_of_another_layout_is_refused(source: Path, tmp_path: Path) -> None:
    """Of none it has two sides, as builds had before; no word of it reads as a proof."""
    manifest = write_engine(source, tmp_path / "e", Precision.BF16)
    for options, expected in (
        ({}, TWO_SIDES),
        ({"state_layout": "two sides"}, TWO_SIDES),
        ({"state_layout": "one spare that rotates"}, ROTATING),
        ({"mamba": "plugin"}, StateLayout.IN_PLACE),
    ):
        assert layout_of(manifest.model_copy(update={"options": options})) is expected
    for word in ("in place", "", "proven", True):
        changed = manifest.model_copy(update={"options": {"state_layout": word}})
        with pytest.raises(ArtefactError, match="build it again"):
            layout_of(changed)


def test_inspect_says_which(compiled_tiny: Callable[[str, str], Path]) -> None:
    manifest = read_manifest(compiled_tiny("bf16", "a100"))
    assert plan_rows(manifest)["states"] == "one spare that rotates"
    two = {"state_layout": "two sides", "state_layout_reason": "a kernel may still run"}
    refused = manifest.model_copy(update={"options": manifest.options | two})
    assert plan_rows(refused)["states"] == "two sides: a kernel may still run"


def test_a_build_without_the_proof_says_so(
    compiled_tiny: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(compiled_tiny("bf16", "a100"))
    two = {"state_layout": "two sides", "state_layout_reason": "a kernel may still run"}
    refused = manifest.model_copy(update={"options": manifest.options | two})
    monkeypatch.setattr(engine_builder, "build_engine", lambda *args, **how: refused)
    result = CliRunner().invoke(main, ["build", "tiny", "--gpu", "a100", "-o", str(tmp_path / "e")])
    assert result.exit_code == 0
    assert "Warning: states take two sides, since a kernel may still run." in result.stderr
