"""Engines of one small checkpoint for every backend that opens here, with its stand-ins if need be.

What TensorRT would compile is an empty plan file: the stand-in runs the graph beside it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nemotrt.build.engine_builder import BuildSpec, build_engine, model_summary
from nemotrt.cli import main
from nemotrt.engines.artefact.manifest import (
    CheckpointEntry,
    LimitsEntry,
    Manifest,
    write_manifest,
)
from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt.compile import compiler
from nemotrt.engines.backends.tensorrt.compile.state_proof import STATE_LAYOUT
from nemotrt.engines.backends.tensorrt.graph import export as graph_export
from nemotrt.engines.backends.tensorrt.run import engine as tensorrt_engine
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.graph.onnx_graph import GRAPH_FILE
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from support import cuda_stand_in
from support import tensorrt_stand_in as stand_in
from support.weight_inputs import weight_inputs

LIMITS = Limits(max_batch_size=4, max_seq_len=64, chunk_tokens=16)
HOLDS = ("native", "onnxruntime")  # their weights are inside
READS = ("tensorrt", "tensorrt-llm")  # theirs stay in the checkpoint
LLM_API = Path(__file__).parent / "llm_api"


def write_plan(
    source: Path,
    folder: Path,
    precision: Precision,
    *,
    is_embedded: bool = False,
    layout: StateLayout = StateLayout.TWO_SIDES,
) -> Manifest:
    """Write a plan's engine directory, but for config.json and engine.json; return its manifest."""
    folder.mkdir(parents=True)
    checkpoint = open_checkpoint(source)
    bound = graph_export.export(checkpoint, folder, LIMITS, precision, is_embedded=is_embedded)
    (folder / compiler.PLAN_FILE).touch()
    return Manifest(
        backend="tensorrt",
        gpu="a10g",
        compute_capability="8.6",
        precision=precision,
        executed=False,
        limits=LimitsEntry(max_batch_size=4, max_seq_len=64, chunk_tokens=16),
        model=model_summary(checkpoint.config),
        checkpoint=CheckpointEntry(path=str(source), fingerprint=checkpoint.fingerprint()),
        weights=weight_inputs(checkpoint, bound),
        tools={"tensorrt-rtx": "1"},
        options={STATE_LAYOUT: layout.value},
        files={},
    )


def write(backend: str, source: Path, folder: Path) -> Path:
    """Write an engine directory of the checkpoint."""
    if backend == "tensorrt":
        manifest = write_plan(source, folder, Precision.BF16)
        (folder / "config.json").write_bytes((source / "config.json").read_bytes())
        write_manifest(folder, manifest)
    else:
        gpu = "a10g" if backend in READS else None
        build_engine(source, folder, BuildSpec(backend, gpu, limits=LIMITS))
    return folder


@contextmanager
def host_of(backend: str, folder: Path) -> Iterator[None]:
    """The machine that the engine in `folder` is for."""
    with pytest.MonkeyPatch.context() as patch:
        if backend == "tensorrt-llm":
            patch.syspath_prepend(str(LLM_API))
        if backend == "tensorrt":
            cuda = cuda_stand_in.Cuda()
            graph = folder / GRAPH_FILE
            trt = stand_in.RtxTensorRT(cuda, graph, LIMITS, compiler.profiles(LIMITS))
            patch.setattr(tensorrt_engine, "local_compute_capability", lambda: "8.6")
            patch.setattr(tensorrt_engine, "plan_module", lambda manifest: "tensorrt_rtx_bindings")
            patch.setattr(tensorrt_engine, "load_module", lambda name: trt)
            patch.setattr(tensorrt_engine, "cuda_api", lambda: cuda)
        try:
            yield
        finally:
            sys.modules.pop("tensorrt_llm", None)


def generate(backend: str, folder: Path, *options: object) -> Result:
    """Run `nemotrt generate` there."""
    words = ["generate", str(folder), "--prompt-ids", "5,9,11", "--max-tokens", "5"]
    words += ["--ignore-eos", *map(str, options)]
    with host_of(backend, folder):
        return CliRunner().invoke(main, words)
