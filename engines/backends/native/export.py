"""Packs a native engine: its program, and its weights as the kernels read them."""

from importlib.metadata import version
from pathlib import Path

from nemotrt.engines.backends.native.library.compiler import source_hash
from nemotrt.engines.backends.native.library.library import InstructionSet, best_isa
from nemotrt.engines.backends.native.program.emitter import NativeEmitter
from nemotrt.engines.backends.native.program.options import NativeOptions
from nemotrt.engines.backends.native.program.program import PROGRAM_FILE
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.description import describe
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits

DEFAULTS = NativeOptions()


def export(
    checkpoint: Checkpoint,
    folder: Path,
    limits: Limits,
    precision: Precision,
    options: NativeOptions = DEFAULTS,
) -> None:
    """Write the program and its packed weights to `folder`."""
    emitter = NativeEmitter(checkpoint, folder, limits.max_seq_len, precision, options)
    describe(checkpoint.config, emitter)
    text = emitter.program().model_dump_json(indent=1)
    (folder / PROGRAM_FILE).write_text(text + "\n", encoding="utf-8")


def has_vector_kernels() -> bool:
    """Whether this CPU runs more than the portable kernels, which ONNX Runtime outruns.

    Raises:
        EnvironmentUnfitError: the library can't be compiled or loaded.
    """
    return best_isa() > InstructionSet.PORTABLE


def tools() -> dict[str, str]:
    """Return the versions of what the engine depends on."""
    return {"nemotrt": version("nemotrt"), "native step": source_hash()}
