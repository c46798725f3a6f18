"""The engine over a plan, run on a stand-in for TensorRT and CUDA: all but the GPU's own work."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.artefact.manifest import (
    write_manifest,
)
from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt.compile import compiler
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.run import engine as engine_module
from nemotrt.engines.backends.tensorrt.run.engine import TensorRTEngine
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.graph.onnx_graph import GRAPH_FILE
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed
from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError
from support import cuda_stand_in, fake_quantized, reference
from support import tensorrt_stand_in as stand_in
from support.movable import LIMITS
from support.movable import write_plan as write_engine


def open_on_stand_in(
    source: Path,
    folder: Path,
    precision: Precision = Precision.BF16,
    flavour: Callable[..., stand_in.TensorRT] = stand_in.RtxTensorRT,
    *,
    is_embedded: bool = False,
    layout: StateLayout = StateLayout.TWO_SIDES,
) -> tuple[TensorRTEngine, stand_in.TensorRT]:
    """Return an engine over the stand-in, and the stand-in."""
    manifest = write_engine(source, folder, precision, is_embedded=is_embedded, layout=layout)
    cuda = cuda_stand_in.Cuda()
    trt = flavour(cuda, folder / GRAPH_FILE, LIMITS, compiler.profiles(LIMITS))
    kernels = folder.parent / "kernels"
    return TensorRTEngine(trt, Cuda(cuda), folder, manifest, kernels), trt


@pytest.fixture
def model() -> Any:
    return reference.nemotron_h("M-*M-")


@pytest.fixture(params=[stand_in.RtxTensorRT, stand_in.TensorRT])
def small(
    model: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[TensorRTEngine, stand_in.TensorRT]:
    """An engine over each flavour."""
    source = reference.save(model, tmp_path / "c")
    return open_on_stand_in(source, tmp_path / "e", flavour=request.param)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_a_prompt_and_single_tokens_give_the_reference_logits(small: Any, model: Any) -> None:
    """The first call is exact; later ones read caches and windows that were rounded to bfloat16."""
    engine, _ = small
    tokens = [int(t) for t in np.random.default_rng(0).integers(0, 96, 20)]
    expected = reference.logits(model, tokens)
    slot = engine.allocate()
    first = engine.step([Feed(slot, tokens[:12])])[0]
    np.testing.assert_allclose(first, expected[11], atol=1e-4, rtol=0)
    for index in range(12, 20):
        found = engine.step([Feed(slot, [tokens[index]])])[0]
        assert relative_error(found, expected[index]) < 1e-2
    assert engine.held_tokens(slot) == 20


def test_each_token_of_a_piece_has_its_logits(small: Any, model: Any) -> None:
    """A plan gives one row a call, so the tokens that bring rows run one by one."""
    engine, _ = small
    tokens = [int(t) for t in np.random.default_rng(1).integers(0, 96, 20)]
    expected = reference.logits(model, tokens)
    slots = [engine.allocate(), engine.allocate()]
    found = engine.step([Feed(slots[0], tokens[:12], 12), Feed(slots[1], tokens[:9], 3)])
    for row, index in zip(found, [*range(12), 6, 7, 8], strict=True):
        assert relative_error(row, expected[index]) < 1e-2
    assert [engine.held_tokens(slot) for slot in slots] == [12, 9]


@pytest.mark.parametrize("seed", range(4))
def test_any_schedule_gives_what_each_sequence_gives_alone(
    seed: int, small: Any, model: Any, tmp_path: Path
) -> None:
    """Slots come and go, rows move, sides and graphs differ: the logits do not."""
    engine, trt = small
    alone, _ = open_on_stand_in(tmp_path / "c", tmp_path / "alone")
    rng = np.random.default_rng(seed)
    live: dict[int, list[list[int]]] = {}
    for _ in range(30):
        if live and rng.random() < 0.2:
            slot = int(rng.choice(sorted(live)))
            _check_alone(alone, live.pop(slot), None)
            engine.release(slot)
        while len(live) < 4 and rng.random() < 0.5:
            live[engine.allocate()] = []
        chosen = [slot for slot in rng.permutation(sorted(live)) if rng.random() < 0.8]
        feeds = []
        for slot in map(int, chosen):
            count = int(rng.choice([1, 1, 1, 2, 7, 16]))
            if sum(map(len, live[slot])) + count <= 64:
                feeds.append(Feed(slot, [int(t) for t in rng.integers(0, 96, count)]))
        if not feeds:
            continue
        found = engine.step(feeds)
        for feed, logits in zip(feeds, found, strict=True):
            live[feed.slot].append(list(feed.tokens))
            if rng.random() < 0.15:
                _check_alone(alone, live[feed.slot], logits)
    assert trt.num_executions > 20


def _check_alone(engine: TensorRTEngine, chunks: list[list[int]], expected: Any) -> None:
    """Feed the same chunks to an engine that has nothing else to do."""
    slot = engine.allocate()
    found = None
    for chunk in chunks:
        found = engine.step([Feed(slot, chunk)])[0]
    if expected is not None:
        np.testing.assert_allclose(found, expected, atol=2e-4, rtol=0)
    engine.release(slot)


def test_decode_steps_launch_captured_graphs(small: Any) -> None:
    """Two sides of the state, so two graphs; each is captured in the second step of its kind."""
    engine, trt = small
    slots = [engine.allocate() for _ in range(3)]
    engine.step([Feed(slot, [1, 2, 3]) for slot in slots])
    for _ in range(10):
        engine.step([Feed(slot, [5]) for slot in slots])
    assert len(trt.cuda.graphs) == 2
    assert trt.cuda.num_launches == 10 - 4


def test_compiled_kernels_are_kept_for_the_next_time(model: Any, tmp_path: Path) -> None:
    """TensorRT for RTX: prompt chunks share a few shapes; a second engine compiles nothing."""
    source = reference.save(model, tmp_path / "c")

    def run(folder: Path) -> list[str]:
        engine, trt = open_on_stand_in(source, folder)
        assert isinstance(trt, stand_in.RtxTensorRT)
        slot = engine.allocate()
        for length in (5, 16, 3, 9, 1, 1, 1):
            engine.step([Feed(slot, [7] * length)])
        assert trt.cuda.num_launches == 0  # each side ran at most twice
        engine.close()
        return trt.compiled

    assert len(run(tmp_path / "e")) == 2
    assert run(tmp_path / "again") == []
    (tmp_path / "kernels").write_bytes(b"of another GPU")
    assert len(run(tmp_path / "third")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again",
        "c",
        "e",
        "kernels",
        "third",
    ]


def test_a_chunk_near_the_end_of_the_cache_is_not_padded(model: Any, tmp_path: Path) -> None:
    engine, _ = open_on_stand_in(reference.save(model, tmp_path / "c"), tmp_path / "e")
    tokens = [int(t) for t in np.random.default_rng(3).integers(0, 96, 64)]
    slot = engine.allocate()
    for begin in range(0, 62, 14):  # 14, 28, 42, 56: the last call ends at 64
        found = engine.step([Feed(slot, tokens[begin : begin + 14])])[0]
    assert engine.held_tokens(slot) == 64
    assert relative_error(found, reference.logits(model, tokens)[-1]) < 1e-2


def test_the_scheduler_drives_it(small: Any) -> None:
    """Six requests over four slots; each gets what it gets alone."""
    engine, _ = small

    def run(prompts: list[list[int]]) -> list[list[int]]:
        scheduler = Scheduler(engine, None, eos_ids=())
        found: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            found[str(index)] = []
            scheduler.submit(Request(str(index), tuple(prompt), SamplingParams(max_tokens=6)))
        while not scheduler.is_idle:
            for update in scheduler.step():
                found[update.request_id] += [token.id for token in update.tokens]
        return list(found.values())

    prompts = [[3 + i, 7, 11, 2 * i] for i in range(6)]
    together = run(prompts)
    assert {len(tokens) for tokens in together} == {6}
    assert together == [run([prompt])[0] for prompt in prompts]


@pytest.mark.parametrize("name", ["int8-wo", "int8-sq", "int8-sq-unfolded", "fp8"])
def test_quantized_plans_compute_the_checkpoint_s_own_arithmetic(
    name: str, quantized_tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    """Against transformers whose linears round their inputs as the scales say."""
    source = quantized_tiny(name)
    precision = Precision(name.removesuffix("-unfolded"))
    engine, _ = open_on_stand_in(source, tmp_path / "e", precision)
    oracle = fake_quantized.load(TINY_MODELS["tiny"], source)
    tokens = list(range(100, 116))
    with torch.no_grad():
        expected = oracle(torch.tensor([tokens])).logits[0, -1].numpy()
    found = engine.step([Feed(engine.allocate(), tokens)])[0]
    # a value at a rounding boundary may take the neighbouring code
    assert relative_error(found, expected) < 5e-3
    engine.close()


@pytest.mark.parametrize("name", ["bf16", "int8-wo", "int8-sq", "fp8"])
def test_embedded_weights_compute_the_same(
    name: str, quantized_tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    source = TINY_MODELS["tiny"] if name == "bf16" else quantized_tiny(name)
    found = []
    for is_embedded in (False, True):
        folder = tmp_path / str(is_embedded)
        engine, _ = open_on_stand_in(source, folder, Precision(name), is_embedded=is_embedded)
        slot = engine.allocate()
        found.append([engine.step([Feed(slot, tokens)])[0] for tokens in ([100, 7, 8], [9], [5])])
        engine.close()
    np.testing.assert_allclose(found[1], found[0], atol=1e-3, rtol=0)


def test_close_frees_everything(small: Any) -> None:
    engine, trt = small
    slot = engine.allocate()
    for _ in range(4):
        engine.step([Feed(slot, [1])])
    engine.close()
    assert trt.cuda.device == {} and trt.cuda.host == {} and trt.cuda.graphs == {}
    assert not trt.cuda.is_stream_open


def test_a_released_slot_leaves_nothing(small: Any, model: Any) -> None:
    engine, _ = small
    slot = engine.allocate()
    engine.step([Feed(slot, list(range(16)))])
    engine.release(slot)
    again = engine.allocate()
    assert again == slot and engine.held_tokens(again) == 0
    found = engine.step([Feed(again, [4, 5, 6])])[0]
    np.testing.assert_allclose(found, reference.logits(model, [4, 5, 6])[-1], atol=1e-4, rtol=0)


def test_limits_are_kept_without_touching_the_state(small: Any) -> None:
    engine, trt = small
    slot = engine.allocate()
    for tokens in ([], [0] * 17, [96]):
        with pytest.raises(ConfigError):
            engine.step([Feed(slot, tokens)])
    assert trt.num_executions == 0


def test_memory_that_does_not_suffice_is_named(model: Any, tmp_path: Path) -> None:
    manifest = write_engine(reference.save(model, tmp_path / "c"), tmp_path / "e", Precision.BF16)
    cuda = cuda_stand_in.Cuda(total_bytes=100_000)
    graph = tmp_path / "e" / GRAPH_FILE
    trt = stand_in.TensorRT(cuda, graph, LIMITS, compiler.profiles(LIMITS))
    with pytest.raises(EnvironmentUnfitError, match="max-batch-size"):
        TensorRTEngine(trt, Cuda(cuda), tmp_path / "e", manifest)


def test_changed_weights_are_refused(model: Any, tmp_path: Path) -> None:
    source = reference.save(model, tmp_path / "c")
    manifest = write_engine(source, tmp_path / "e", Precision.BF16)
    shard = source / "model.safetensors"
    raw = bytearray(shard.read_bytes())
    offset = open_checkpoint(source)["lm_head.weight"].offset
    raw[offset] ^= 1
    shard.write_bytes(raw)
    cuda = cuda_stand_in.Cuda()
    trt = stand_in.TensorRT(cuda, tmp_path / "e" / GRAPH_FILE, LIMITS, compiler.profiles(LIMITS))
    with pytest.raises(ArtefactError, match="has changed since the build"):
        TensorRTEngine(trt, Cuda(cuda), tmp_path / "e", manifest)
    shutil.rmtree(source)
    with pytest.raises(ArtefactError, match="is missing"):
        TensorRTEngine(trt, Cuda(cuda), tmp_path / "e", manifest)


@pytest.mark.parametrize(
    ("found", "message"),
    [(None, "no NVIDIA GPU"), ("8.0", r"this machine's GPU has 8\.0"), ("8.6", "tensorrt-rtx 1")],
)
def test_opening_refuses_what_can_not_run(
    found: str | None,
    message: str,
    model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest = write_engine(reference.save(model, tmp_path / "c"), tmp_path / "e", Precision.BF16)
    monkeypatch.setattr(engine_module, "local_compute_capability", lambda: found)
    with pytest.raises(EnvironmentUnfitError, match=message):
        engine_module.open_engine(tmp_path / "e", manifest)


def test_generate_runs_on_the_stand_ins(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command as on a GPU host, all the way; then with a GPU that CUDA orders first."""
    source = reference.save(model, tmp_path / "c")
    manifest = write_engine(source, tmp_path / "e", Precision.BF16)
    shutil.copyfile(source / "config.json", tmp_path / "e" / "config.json")
    write_manifest(tmp_path / "e", manifest)
    cuda = cuda_stand_in.Cuda()
    graph = tmp_path / "e" / GRAPH_FILE
    trt = stand_in.RtxTensorRT(cuda, graph, LIMITS, compiler.profiles(LIMITS))
    monkeypatch.setattr(engine_module, "local_compute_capability", lambda: "8.6")
    monkeypatch.setattr(engine_module, "plan_module", lambda manifest: "tensorrt_rtx_bindings")
    monkeypatch.setattr(engine_module, "load_module", lambda name: trt)
    monkeypatch.setattr(engine_module, "cuda_api", lambda: cuda)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = ["generate", str(tmp_path / "e"), "--prompt-ids", "5,9,11", "--max-tokens", "6"]
    result = CliRunner().invoke(main, [*command, "--temperature", "0"])
    assert result.exit_code == 0, result.stderr
    tokens = [5, 9, 11]
    for _ in range(6):
        tokens.append(int(reference.logits(model, tokens)[-1].argmax()))
    assert result.stdout.strip() == ",".join(map(str, tokens[3:]))
    assert not cuda.is_stream_open and cuda.device == {}  # closed
    assert len(list((tmp_path / "cache" / "nemotrt").glob("kernels-*"))) == 1
    monkeypatch.setattr(cuda_stand_in.Cuda, "CAPABILITY", (8, 0))
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 3 and "this machine's GPU has 8.0" in result.stderr
    assert not cuda.is_stream_open


def test_generate_exits_3_without_a_gpu(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = reference.save(model, tmp_path / "c")
    manifest = write_engine(source, tmp_path / "e", Precision.BF16)
    shutil.copyfile(source / "config.json", tmp_path / "e" / "config.json")
    write_manifest(tmp_path / "e", manifest)
    monkeypatch.setattr(engine_module, "local_compute_capability", lambda: None)
    result = CliRunner().invoke(main, ["generate", str(tmp_path / "e"), "--prompt-ids", "1,2"])
    assert result.exit_code == 3
    assert "no NVIDIA GPU" in result.stderr
