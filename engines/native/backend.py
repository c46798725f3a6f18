"""The native backend: packs an engine at build, and opens it on this CPU."""

from importlib.metadata import version
from pathlib import Path

from nemotrt.engines.checkpoint import Checkpoint
from nemotrt.engines.description import describe
from nemotrt.engines.engine import Limits
from nemotrt.engines.manifest import Manifest
from nemotrt.engines.native.binding import InstructionSet
from nemotrt.engines.native.compiler import source_hash
from nemotrt.engines.native.emitter import NativeEmitter
from nemotrt.engines.native.engine import NativeEngine
from nemotrt.engines.native.library import check_available, load_library
from nemotrt.engines.native.program import PROGRAM_FILE, StateFormat
from nemotrt.engines.precision import Precision
from nemotrt.errors import ConfigError

# What any checkpoint can be built in; the other precisions need codes that the checkpoint stores.
ANY_CHECKPOINT = (Precision.FP32, Precision.BF16, Precision.INT8_WO)


def check(precision: Precision, stored: Precision | None = None) -> None:
    """Raise unless this backend runs `precision`, and can run on this machine.

    Args:
        precision: of the engine.
        stored: the checkpoint's own, if it is quantized.

    Raises:
        ConfigError: the checkpoint does not hold what the precision needs.
        EnvironmentUnfitError: there is neither a compiled step nor a C++ compiler.
    """
    if precision not in ANY_CHECKPOINT and precision is not stored:
        names = ", ".join(ANY_CHECKPOINT)
        raise ConfigError(
            f"backend native builds {precision} from a checkpoint quantized to it: first run "
            f"nemotrt quantize --recipe {precision}. From any checkpoint it builds {names}."
        )
    check_available()


def export(
    checkpoint: Checkpoint,
    folder: Path,
    limits: Limits,
    precision: Precision,
    ssm_state: StateFormat = StateFormat.FLOAT32,
) -> None:
    """Write the program and its packed weights to `folder`."""
    emitter = NativeEmitter(checkpoint, folder, limits.max_seq_len, precision, ssm_state)
    describe(checkpoint.config, emitter)
    text = emitter.program().model_dump_json(indent=1)
    (folder / PROGRAM_FILE).write_text(text + "\n", encoding="utf-8")


def has_vector_kernels() -> bool:
    """Whether this CPU runs more than the portable kernels, which ONNX Runtime outruns.

    Raises:
        EnvironmentUnfitError: the library can't be compiled or loaded.
    """
    return bool(load_library().nemotrt_best_isa() > InstructionSet.PORTABLE)


def tools() -> dict[str, str]:
    """Return the versions of what the engine depends on."""
    return {"nemotrt": version("nemotrt"), "native step": source_hash()}


def open_engine(folder: Path, manifest: Manifest, num_threads: int | None = None) -> NativeEngine:
    """Return the open engine of an engine directory."""
    return NativeEngine(folder, manifest.engine_limits, num_threads)
