"""The stages of `check ENGINE`: open, step, compare with another computation, time."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nemotrt.build.check.engine.bounds import bound
from nemotrt.build.check.engine.reference import BY_LAYERS, by_engine, by_layers, peer_of, source_of
from nemotrt.build.check.engine.script import MAX_PROMPT, Floats, Place, num_at_once, run, sequences
from nemotrt.build.check.result.engine_check import EngineCheck
from nemotrt.build.check.result.fault import CheckFaultError, Fault, Outcome, Stage, stage
from nemotrt.build.check.result.rows import Comparison
from nemotrt.engines.artefact.manifest import Manifest, read_manifest
from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Engine, Feed
from nemotrt.engines.runtime.request_scheduler import SchedulesItself
from nemotrt.errors import ArtefactError, ConfigError

DECODE_STEPS = 16


def check_engine(
    folder: Path,
    report: Callable[[str], None] = lambda text: None,
    options: OpenOptions = AS_BUILT,
    *,
    is_by_layers: bool = False,
) -> EngineCheck:
    """Return what holds of an engine directory; a fault of the tree ends in `faults`.

    Args:
        folder: the engine directory.
        report: told what is under way.
        options: how it is opened.
        is_by_layers: compare layer by layer, also where memory suffices for a second engine.

    Raises:
        ConfigError: it is no engine directory, or its backend gives no logits.
    """
    try:
        manifest = read_manifest(folder)
    except ArtefactError as error:  # whose exit code would say that something computes wrong
        raise ConfigError(error.message) from error
    found = EngineCheck(str(folder), manifest.backend, manifest.gpu, manifest.precision.value)
    try:
        _check(found, folder, manifest, report, options, is_by_layers)
    except CheckFaultError as error:
        found.faults.append(error.fault)
    return found


def _check(
    found: EngineCheck,
    folder: Path,
    manifest: Manifest,
    report: Callable[[str], None],
    options: OpenOptions,
    is_by_layers: bool,
) -> None:
    """Fill in what is found, stage after stage."""
    report(f"opening {folder}")
    with stage(Stage.OPEN):
        checkpoint = source_of(folder, manifest, options.checkpoint)
        opened = open_engine(folder, options)
    engine = opened.engine
    try:
        if isinstance(engine, SchedulesItself):
            raise ConfigError(f"check compares logits, which backend {manifest.backend} lacks.")
        with stage(Stage.STEP):
            wanted = sequences(engine)
            report("its own steps")
            rows = run(engine, wanted)
            _time(found, engine)
    finally:
        engine.close()
    with stage(Stage.COMPARE):
        peer = None if is_by_layers else peer_of(manifest, checkpoint)
        found.reference = BY_LAYERS if peer is None else f"backend {peer} on the same checkpoint"
        report(f"comparing with {found.reference}")
        if peer is None:
            rounds = manifest.precision.inputs.is_quantized and found.gpu is not None
            others = by_layers(checkpoint, wanted, list(rows), rounds_inputs=rounds)
        else:
            others = by_engine(peer, manifest, checkpoint, wanted)
    _compare(found, bound(manifest, checkpoint.quant.precision), rows, others)


def _compare(
    found: EngineCheck,
    limit: tuple[float, str],
    rows: dict[Place, Floats],
    others: dict[Place, Floats],
) -> None:
    """Note the largest error, and a fault where it is beyond the bound."""
    errors = {place: relative_error(row, others[place]) for place, row in rows.items()}
    (number, count), error = max(errors.items(), key=lambda item: (item[1] != item[1], item[1]))
    found.num_rows = len(rows)
    found.comparison = Comparison("logits", error, *limit)
    if not found.comparison.is_right:
        what = (
            f"logits of sequence {number} after {count} tokens are off by {error:.3g} from "
            f"{found.reference}; the bound is {found.comparison.bound:.3g} "
            f"({found.comparison.why})."
        )
        found.faults.append(Fault(Stage.COMPARE, what, Outcome.WRONG))


def relative_error(found: Floats, expected: Floats) -> float:
    """Return the length of the difference as a part of the expected row's; NaN stays NaN."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _time(found: EngineCheck, engine: Engine) -> None:
    """Note how many tokens per second one prompt and several sequences' steps have."""
    limits, random = engine.limits, np.random.default_rng(1)
    num_prompt = max(1, min(MAX_PROMPT, limits.chunk_tokens, limits.max_seq_len - 1))
    prompt = random.integers(0, engine.vocab_size, num_prompt).tolist()
    steps = min(DECODE_STEPS, limits.max_seq_len - 1)
    slots = [engine.allocate() for _ in range(num_at_once(limits))]
    for slot in slots[1:]:
        engine.step([Feed(slot, prompt[:1])])
    start_s = time.perf_counter()
    engine.step([Feed(slots[0], prompt)])
    found.prefill_tokens_per_s = num_prompt / (time.perf_counter() - start_s)
    start_s, taken = time.perf_counter(), 0
    while taken < steps and max(map(engine.held_tokens, slots)) < limits.max_seq_len:
        engine.step([Feed(slot, prompt[:1]) for slot in slots])
        taken += 1
    if taken:
        found.decode_tokens_per_s = taken * len(slots) / (time.perf_counter() - start_s)
    found.decode_sequences = len(slots)
    for slot in slots:
        engine.release(slot)
