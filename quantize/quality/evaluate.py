"""Quality of a quantized checkpoint or an engine against its reference.

A quantized checkpoint runs on the CPU over the same tokens as the reference, block by block
(forward.py) and in its own arithmetic (fake_quant.py), before a GPU is rented; an engine runs
itself (engine_quality.py). Perplexity is exp of the mean negative log-likelihood of the next
token; the divergence is KL(reference || candidate) in nats, averaged over positions.
"""

import math
import tempfile
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

import numpy as np

from nemotrt.engines.artefact.manifest import MANIFEST_FILE
from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.tensor_names import (
    Block,
    blocks,
    expected_shapes,
    linear_names,
    model_names,
)
from nemotrt.errors import ConfigError
from nemotrt.quantize.calibration.forward import Floats
from nemotrt.quantize.calibration.texts import nested_order
from nemotrt.quantize.quality.engine_quality import evaluate_engine
from nemotrt.quantize.quality.linear_error import LinearErrors
from nemotrt.quantize.quality.quality import Ids, LayerError, Quality, Tally, TextQuality
from nemotrt.quantize.quality.running.kept import KeptStreams
from nemotrt.quantize.quality.running.opened import opened_block, opened_head
from nemotrt.quantize.quality.running.pace import fitting_windows, measured_pace
from nemotrt.quantize.quality.running.streams import Stream

Progress = Callable[[int], None]
LeftOut = Mapping[str, int]
NOTHING: LeftOut = MappingProxyType({})
SAMPLE_TOKENS = 256  # of a text, on which layers and linears are compared


def evaluate(
    reference: Path,
    candidate: Path,
    tokens: dict[str, Ids],
    progress: Progress = lambda num_steps: None,
    options: OpenOptions = AS_BUILT,
    left_out: LeftOut = NOTHING,
    keep: Path | None = None,
) -> Quality:
    """Return the quality of `candidate` against `reference` on each named [sequences, tokens].

    Args:
        reference: a checkpoint.
        candidate: a checkpoint or an engine directory of the same model.
        tokens: each text's token windows.
        progress: called with a number of `num_steps(...)` done.
        options: how an engine is opened.
        left_out: how many tokens of each text are in no window, to be told.
        keep: a folder for what the reference makes of the windows, and from which it is taken.

    Raises:
        ConfigError: the two are not the same model, or a text is empty.
        ArtefactError: what was kept is damaged.
        EnvironmentUnfitError: the engine's backend can't run on this machine.
    """
    for name, rows in tokens.items():
        if rows.size == 0:
            raise ConfigError(f"text {name} is shorter than one sequence; give more text.")
    if is_engine(candidate):
        if keep is not None:
            raise ConfigError(f"--keep is for checkpoints; {candidate} is an engine.")
        return evaluate_engine(_open(reference), candidate, tokens, progress, options, left_out)
    return evaluate_checkpoints(
        _open(reference), _open(candidate), tokens, left_out, progress, keep=keep
    )


def windows_within(
    reference: Path,
    candidate: Path,
    tokens: dict[str, Ids],
    minutes: float,
    keep: Path | None = None,
) -> int:
    """Return how many windows of each text a comparison of checkpoints takes in `minutes`.

    With `keep`, they are the first in `nested_order`, of which those there cost the reference none.

    Raises:
        ConfigError: `candidate` is an engine, the texts have no window, or not one fits.
    """
    if is_engine(candidate):
        raise ConfigError(f"--minutes is for checkpoints; {candidate} is an engine: --sequences.")
    window = next((rows[0] for rows in tokens.values() if len(rows)), None)
    if window is None:
        raise ConfigError("the texts are shorter than one sequence; give more text.")
    both = _open(reference), _open(candidate)
    linears = LinearErrors(*both)

    def inside(block: Block, hidden: Floats) -> None:
        linears.run_block(0, block, np.repeat(hidden, len(tokens), axis=0))

    kept = None if keep is None else KeptStreams(keep, both[0])
    pace = measured_pace(both, window, inside)
    return fitting_windows(pace, minutes, _turns(list(tokens.values()), kept))


def _turns(texts: list[Ids], kept: KeptStreams | None) -> Iterator[tuple[int, int]]:
    """Yield the windows of each turn, one of each text, and how many of them are kept."""
    orders = [nested_order(len(rows)) for rows in texts]
    for turn in range(max(map(len, orders))):
        of_turn = [
            rows[order[turn]]
            for rows, order in zip(texts, orders, strict=True)
            if turn < len(order)
        ]
        yield len(of_turn), sum(kept is not None and kept.has(window) for window in of_turn)


def is_engine(folder: Path) -> bool:
    """Whether `folder` is an engine directory."""
    return (folder / MANIFEST_FILE).is_file()


def num_steps(reference: Path, candidate: Path, tokens: dict[str, Ids]) -> int:
    """Return how many steps of progress an evaluation reports."""
    config = _open(reference).config
    num_blocks, every = len(config.layers), sum(map(len, tokens.values()))
    if is_engine(candidate):
        return num_blocks + sum(rows[:, 1:].size for rows in tokens.values())
    return every * (num_blocks + head_steps(config))


def head_steps(config: ModelConfig) -> int:
    """Return how many blocks the head's work is worth: it has as many weights, in the mean."""
    names = linear_names(config)
    shapes = expected_shapes(config)
    mean_weights = sum(math.prod(shapes[name]) for name in names) / len(config.layers)
    return max(1, round(config.vocab_size * config.hidden_size / mean_weights))


def evaluate_checkpoints(
    first: Checkpoint,
    second: Checkpoint,
    tokens: dict[str, Ids],
    left_out: LeftOut = NOTHING,
    progress: Progress = lambda num_steps: None,
    *,
    keep: Path | None = None,
) -> Quality:
    """Return the quality of `second` against `first`, both run block by block, as `evaluate`."""
    if not first.config.computes_as(second.config):
        raise ConfigError(f"{second.path} is another model than {first.path}.")
    every = np.concatenate(list(tokens.values()))
    places, begin = {}, 0
    for name, rows in tokens.items():
        places[name] = range(begin, begin + len(rows))
        begin += len(rows)
    kept = None if keep is None else KeptStreams(keep, first)
    with tempfile.TemporaryDirectory(prefix="nemotrt-") as folder:
        streams = tuple(
            Stream(Path(folder) / name, checkpoint, every)
            for name, checkpoint in (("reference", first), ("candidate", second))
        )
        layers, linears = [], LinearErrors(first, second)
        samples = {name: list(sampled(place, every.shape[1])) for name, place in places.items()}
        known = (
            set() if kept is None else {row for row in range(len(every)) if kept.has(every[row])}
        )
        spared = known.difference(*samples.values())  # the insides of samples are compared
        for number, block in enumerate(blocks(first.config)):
            layers.append(_run_both(number, block, linears, streams, samples, spared, progress))
        if kept is not None:
            for row in spared:
                streams[0][row] = kept.take(every[row])
            for row in set(range(len(every))) - known:
                kept.keep(every[row], streams[0][row])
        texts = list(_compare(tokens, places, (first, second), streams, left_out, progress))
    layers.sort(key=lambda layer: -layer.relative_error)
    linears.found.sort(key=lambda linear: -linear.output_error)
    return Quality(
        reference=str(first.path),
        candidate=str(second.path),
        backend=None,
        precision=_precision(second),
        texts=tuple(texts),
        layers=tuple(layers),
        linears=tuple(linears.found),
    )


def sampled(rows: range, num_tokens: int) -> range:
    """Return the sequences of a text whose insides are compared: SAMPLE_TOKENS, spread evenly."""
    count = min(len(rows), max(1, SAMPLE_TOKENS // num_tokens))
    return rows[:: len(rows) // count][:count]


def _precision(checkpoint: Checkpoint) -> str:
    """Return how the linears are quantized, and the KV cache if it is."""
    quant = checkpoint.quant
    cache = f", {quant.kv_cache_algo} KV cache" if quant.kv_cache_algo else ""
    return f"{quant.precision.algo if quant.precision else quant.title or 'none'}{cache}"


def _open(folder: Path) -> Checkpoint:
    """Return a checkpoint, in whatever layout."""
    if is_engine(folder):
        raise ConfigError(f"{folder} is an engine; --against takes the checkpoint.")
    return open_checkpoint(folder)


def _run_both(
    number: int,
    block: Block,
    linears: LinearErrors,
    streams: tuple[Stream, ...],
    samples: dict[str, list[int]],
    spared: Container[int],
    progress: Progress,
) -> LayerError:
    """Run one block of both models over their streams, in place, and compare.

    `samples` are some sequences of each text, on which the insides are compared. The reference
    does not run those that are `spared`.
    """
    reference, candidate = streams
    num_tokens = reference.shape[1]
    chosen = [row for rows in samples.values() for row in rows]
    before = reference.rows(chosen)
    linears.run_block(number, block, before.copy())
    with opened_block(linears.reference, block, num_tokens) as run:
        for row in range(len(reference)):
            if row not in spared:
                reference[row] = run(reference[row])
            progress(row % 2)
    with opened_block(linears.candidate, block, num_tokens) as run:
        alone = np.stack([run(sequence) for sequence in before])
        for row in range(len(candidate)):
            candidate[row] = run(candidate[row])
            progress(1 - row % 2)
    after = reference.rows(chosen)
    change, added = alone - after, after - before
    ends = np.cumsum([len(rows) for rows in samples.values()]).tolist()
    by_text = {
        name: _relative(change[end - len(rows) : end], added[end - len(rows) : end])
        for (name, rows), end in zip(samples.items(), ends, strict=True)
    }
    return LayerError(
        layer=number,
        kind=block.kind.value,
        relative_error=_relative(change, added),
        by_text=by_text,
        stream_relative_error=_relative(candidate.rows(chosen) - after, after),
    )


def _relative(difference: Floats, of: Floats) -> float:
    size = float(np.linalg.norm(of.ravel()))
    return float(np.linalg.norm(difference.ravel())) / max(size, 1e-30)


def _compare(
    tokens: dict[str, Ids],
    places: dict[str, range],
    checkpoints: tuple[Checkpoint, Checkpoint],
    streams: tuple[Stream, ...],
    left_out: LeftOut,
    progress: Progress,
) -> Iterator[TextQuality]:
    """Yield each text's comparison of next-token distributions, over every position."""
    steps = head_steps(checkpoints[0].config)
    num_tokens = streams[0].shape[1]
    with ExitStack() as stack:
        head = stack.enter_context(opened_head(checkpoints[0], num_tokens))
        other = head
        if not _has_same_head(*checkpoints):
            other = stack.enter_context(opened_head(checkpoints[1], num_tokens))
        for name, rows in tokens.items():
            tally = Tally(name, left_out.get(name, 0))
            for sequence, row in zip(rows, places[name], strict=True):
                first, second = head(streams[0][row][:-1]), other(streams[1][row][:-1])
                tally.add(first, second, sequence[1:])
                progress(steps)
            yield tally.result()


def _has_same_head(first: Checkpoint, second: Checkpoint) -> bool:
    """Whether final norm and head are the same bytes, as they are after every recipe here."""
    names = model_names(first.config)
    return all(first[name].is_same(second[name]) for name in (names.final_norm, names.lm_head))
