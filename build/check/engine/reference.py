"""What an engine is held against: another engine of the same weights, or the model layer by layer.

Layer by layer takes the memory of one layer. It is for a machine without room for a second engine,
and for quantized weights: it has the checkpoint's own codes, which not every CPU engine has.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from nemotrt.build.check.engine.script import Floats, Place, Sequence, run
from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.manifest import Manifest
from nemotrt.engines.artefact.weights import find_weights, same_checkpoint
from nemotrt.engines.backends import registry
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.tensor_names import blocks, model_names
from nemotrt.engines.opening import open_engine
from nemotrt.profiles.planning.cpu.this_machine import available_mib
from nemotrt.quantize.calibration.forward import SequenceEmitter, embed, final_logits, run_block
from nemotrt.quantize.quality.running.fake_quant import QuantizedEmitter

MEMORY_FACTOR = 3  # bfloat16 weights as float32, and room for the engine that is checked
BY_LAYERS = "the checkpoint layer by layer, in float32"


def source_of(folder: Path, manifest: Manifest, given: str | None) -> Checkpoint:
    """Return the checkpoint that the engine came from, which `given` may name.

    Raises:
        ArtefactError: it has gone or changed, or is another one.
    """
    return same_checkpoint(folder, manifest, find_weights(folder, manifest, given))


def peer_of(manifest: Manifest, checkpoint: Checkpoint) -> str | None:
    """Return the CPU backend to compare with; None where only layer by layer will do."""
    if manifest.precision.is_quantized:
        return None
    needed = MEMORY_FACTOR * sum(ref.num_bytes for ref in checkpoint.tensors.values())
    free_bytes = shutil.disk_usage(tempfile.gettempdir()).free
    if needed > min(free_bytes, available_mib() << 20):
        return None
    names = reversed(registry.cpu_names())
    return next((name for name in names if name != manifest.backend), None)


def by_engine(
    backend: str, manifest: Manifest, checkpoint: Checkpoint, wanted: list[Sequence]
) -> dict[Place, Floats]:
    """Return what an engine of that backend answers to the same script."""
    spec = BuildSpec(backend, precision=manifest.precision, limits=manifest.engine_limits)
    with tempfile.TemporaryDirectory(prefix="nemotrt-check-") as folder:
        target = Path(folder) / "engine"
        build_engine(checkpoint.path, target, spec)
        opened = open_engine(target, verify=False)
        try:
            return run(opened.engine, wanted)
        finally:
            opened.engine.close()


def by_layers(
    checkpoint: Checkpoint, wanted: list[Sequence], places: list[Place], *, rounds_inputs: bool
) -> dict[Place, Floats]:
    """Return the logits at the places; padding behind a sequence changes nothing before it."""
    longest = max(len(sequence.tokens) for sequence in wanted)
    tokens = np.zeros((len(wanted), longest), np.int64)
    for row, sequence in zip(tokens, wanted, strict=True):
        row[: len(sequence.tokens)] = sequence.tokens
    hidden = embed(checkpoint, tokens)
    for block in blocks(checkpoint.config):
        emitter = QuantizedEmitter if rounds_inputs else SequenceEmitter
        for _ in run_block(checkpoint, block, hidden, emitter):
            pass
    head = checkpoint.floats(model_names(checkpoint.config).lm_head)
    rows = np.stack([hidden[number, count - 1] for number, count in places])
    return dict(zip(places, final_logits(checkpoint, rows, head), strict=True))
