"""The very ONNX file that TensorRT compiled, run in ONNX Runtime, against the CPU engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.backends.onnxruntime.engine import OnnxRuntimeEngine
from nemotrt.engines.backends.onnxruntime.options import OnnxRuntimeOptions
from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt.compile import compiler
from nemotrt.engines.backends.tensorrt.compile.state_proof import STATE_LAYOUT
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.run.engine import TensorRTEngine
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.graph.onnx_graph import GRAPH_FILE, WEIGHTS_FILE
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.model.tensor_names import blocks, model_names
from nemotrt.engines.runtime.engine import Engine, Feed, Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.quantize.calibration.calibrate import calibrate
from nemotrt.quantize.calibration.calibration import save_calibration
from nemotrt.quantize.calibration.forward import embed, final_logits, run_block
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.quality.running.fake_quant import QuantizedEmitter
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.writing.writer import quantize_checkpoint
from support import cuda_stand_in, reference
from support import tensorrt_stand_in as stand_in

LIMITS = Limits(max_batch_size=4, max_seq_len=64, chunk_tokens=16)
CHUNKS = (16, 7, 1, 1, 5, 1)  # both profiles, and padding
GPUS = {
    "bf16": ("a10g", "a100"),
    "int8-wo": ("a10g", "a100"),
    "int4-wo": ("a10g", "l4"),
    "int8-sq": ("a10g", "a100"),
    "fp8": ("l4",),
}
WEIGHT_ONLY = ("int8-wo", "int4-wo")
MODELS = {
    "hybrid": lambda: reference.nemotron_h("M-*M*-", mamba_head_dim=12, n_groups=4, seed=5),
    "dense": lambda: reference.qwen3(seed=6, head_dim=32),
}


class SixteenBitCache(QuantizedEmitter):
    """The fake-quant engine with keys and values as the plan caches them."""

    def cached(self, what: str, heads: str) -> str:
        return heads


@pytest.fixture(scope="module")
def checkpoint_of(
    quantized_tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """Return a function: (tiny, hybrid or dense; precision) -> a checkpoint of both."""
    folder = tmp_path_factory.mktemp("models")

    def made(name: str, precision: str) -> Path:
        if name == "tiny":
            return TINY_MODELS["tiny"] if precision == "bf16" else quantized_tiny(precision)
        source, target = folder / name, folder / f"{name}-{precision}"
        if not source.exists():
            reference.save(MODELS[name](), source)
            ids = np.random.default_rng(1).integers(0, 96, (4, 32))
            save_calibration(calibrate(open_checkpoint(source), ids), folder / f"{name}-seen")
        if precision == "bf16":
            return source
        if not target.exists():
            options = QuantizeOptions(calibration=folder / f"{name}-seen")
            quantize_checkpoint(source, target, load_recipe(precision), options)
        return target

    return made


def logits(engine: Engine, tokens: list[int]) -> np.ndarray:
    """Return what each chunk ends with, [chunks, vocab]."""
    slot, rows, begin = engine.allocate(), [], 0
    for size in CHUNKS:
        rows.append(engine.step([Feed(slot, tokens[begin : begin + size])])[0])
        begin += size
    engine.close()
    return np.stack(rows)


def cpu_logits(source: Path, precision: str, tokens: list[int], folder: Path) -> np.ndarray:
    """Return the CPU engine's; the fake-quant engine's where activations are quantized."""
    if precision in ("int8-sq", "fp8"):
        return fake_quant_logits(open_checkpoint(source), tokens)
    spec = BuildSpec(
        "onnxruntime",
        None,
        Precision(precision),
        LIMITS,
        OnnxRuntimeOptions(precision in WEIGHT_ONLY),
    )
    build_engine(source, folder, spec)
    return logits(OnnxRuntimeEngine(folder, LIMITS, num_threads=1), tokens)


def fake_quant_logits(checkpoint: Checkpoint, tokens: list[int]) -> np.ndarray:
    hidden = embed(checkpoint, np.array([tokens]))
    for block in blocks(checkpoint.config):
        list(run_block(checkpoint, block, hidden, SixteenBitCache))
    head = checkpoint.floats(model_names(checkpoint.config).lm_head)
    return final_logits(checkpoint, hidden[0], head)[np.cumsum(CHUNKS) - 1]


def graph_logits(folder: Path, tokens: list[int], *, is_rounded: bool) -> np.ndarray:
    """Return those of a built engine, by its own runtime over the stand-ins."""
    cuda, profiles = cuda_stand_in.Cuda(), compiler.profiles(LIMITS)
    graph = folder / GRAPH_FILE
    trt = stand_in.TensorRT(cuda, graph, LIMITS, profiles, is_rounded=is_rounded)
    manifest = read_manifest(folder)
    two_sides = manifest.options | {
        STATE_LAYOUT: StateLayout.TWO_SIDES.value
    }  # on a plain stand-in
    manifest = manifest.model_copy(update={"options": two_sides})
    return logits(TensorRTEngine(trt, Cuda(cuda), folder, manifest), tokens)


def errors(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return |found - expected| / |expected| of each row."""
    return np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)


def size(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def compiled(name: str, precision: str, source: Path, compiled_tiny: Any, folder: Path) -> Path:
    """Return an engine that was compiled for every GPU that takes it; their graphs are the same."""
    if name == "tiny":
        folders = [compiled_tiny(precision, gpu) for gpu in GPUS[precision]]
    else:
        folders = [folder / "e"]
        gpu = GPUS[precision][0 if name == "hybrid" else -1]
        build_engine(source, folders[0], BuildSpec("tensorrt", gpu, limits=LIMITS))
    files = [read_manifest(folder).files for folder in folders]
    for name in (GRAPH_FILE, WEIGHTS_FILE):
        assert len({found[name].sha256 for found in files}) == 1
    assert all(found[compiler.PLAN_FILE].num_bytes > 50_000 for found in files)
    return folders[0]


# One model a precision here; every pair in the slow tier.
QUICK = {("bf16", "hybrid"), ("int8-wo", "hybrid"), ("int8-sq", "dense"), ("fp8", "dense")}
PAIRS = [
    pytest.param(precision, name, marks=() if (precision, name) in QUICK else pytest.mark.slow)
    for precision in GPUS
    for name in ("tiny", "hybrid", "dense")
    if precision != "int4-wo" or name == "tiny"  # groups of 32 divide no width of the others
]


@pytest.mark.parametrize(("precision", "name"), PAIRS)
def test_the_compiled_graph_gives_the_cpu_engine_s_logits(
    name: str,
    precision: str,
    checkpoint_of: Callable[[str, str], Path],
    compiled_tiny: Callable[[str, str], Path],
    tmp_path: Path,
) -> None:
    """First with only what lies in memory rounded to bfloat16, then with every result rounded.

    Where activations are quantized, a value at a rounding boundary may take the neighbouring code:
    there the quantization's own error is the measure.
    """
    source = checkpoint_of(name, precision)
    folder = compiled(name, precision, source, compiled_tiny, tmp_path)
    vocab = open_checkpoint(source).config.vocab_size
    tokens = np.random.default_rng(2).integers(0, vocab, sum(CHUNKS)).tolist()
    ends = np.cumsum(CHUNKS) - 1
    expected = cpu_logits(source, precision, tokens, tmp_path / "cpu")
    model = reference.load(checkpoint_of(name, "bf16"))
    exact = reference.logits(model, tokens)[ends]
    own = size(errors(expected, exact))  # what the quantization costs; nothing in bf16

    stored = errors(graph_logits(folder, tokens, is_rounded=False), expected)
    assert stored[0] < (2e-2 if precision == "fp8" else 1e-4)  # it met no stored state
    assert size(stored) < (1e-2 if precision in ("bf16", *WEIGHT_ONLY) else 0.6 * own)

    rounded = graph_logits(folder, tokens, is_rounded=True)
    sixteen_bits = size(errors(reference.logits(model.bfloat16(), tokens)[ends], exact))
    assert size(errors(rounded, exact)) < 1.4 * np.hypot(own, sixteen_bits)
    if name == "tiny" and precision in ("bf16", *WEIGHT_ONLY):
        assert size(errors(rounded, expected)) < 1e-2
