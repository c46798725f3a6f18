"""Quality of a quantized checkpoint or an engine against its reference.

A quantized checkpoint runs on the CPU over the same tokens as the reference, block by block
(forward.py) and in its own arithmetic (fake_quant.py), before a GPU is rented; an engine runs
itself (engine_quality.py). Perplexity is exp of the mean negative log-likelihood of the next
token; the divergence is KL(reference || candidate) in nats, averaged over positions.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nemotrt.engines.artefact.manifest import MANIFEST_FILE
from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.model.tensor_names import Block, blocks, model_names
from nemotrt.errors import ConfigError
from nemotrt.quantize.calibration.forward import Floats, embed, final_logits, run_block
from nemotrt.quantize.quality.engine_quality import evaluate_engine
from nemotrt.quantize.quality.fake_quant import QuantizedEmitter
from nemotrt.quantize.quality.linear_error import LinearErrors
from nemotrt.quantize.quality.quality import Ids, LayerError, Quality, Tally, TextQuality

Progress = Callable[[int], None]


def evaluate(
    reference: Path,
    candidate: Path,
    tokens: dict[str, Ids],
    progress: Progress = lambda num_steps: None,
    options: OpenOptions = AS_BUILT,
) -> Quality:
    """Return the quality of `candidate` against `reference` on each named [sequences, tokens].

    Args:
        reference: a checkpoint.
        candidate: a checkpoint or an engine directory of the same model.
        tokens: each text's token windows.
        progress: called with a number of `num_steps(...)` done.
        options: how an engine is opened.

    Raises:
        ConfigError: the two are not the same model, or a text is empty.
        EnvironmentUnfitError: the engine's backend can't run on this machine.
    """
    for name, rows in tokens.items():
        if rows.size == 0:
            raise ConfigError(f"text {name} is shorter than one sequence; give more text.")
    if is_engine(candidate):
        return evaluate_engine(_open(reference), candidate, tokens, progress, options)
    return _evaluate_checkpoint(_open(reference), _open(candidate), tokens, progress)


def is_engine(folder: Path) -> bool:
    """Whether `folder` is an engine directory."""
    return (folder / MANIFEST_FILE).is_file()


def num_steps(reference: Path, candidate: Path, tokens: dict[str, Ids]) -> int:
    """Return how many steps of progress an evaluation reports."""
    num_blocks = len(_open(reference).config.layers)
    if not is_engine(candidate):
        return num_blocks
    return num_blocks + sum(rows[:, 1:].size for rows in tokens.values())


def _evaluate_checkpoint(
    first: Checkpoint, second: Checkpoint, tokens: dict[str, Ids], progress: Progress
) -> Quality:
    """Run both checkpoints block by block."""
    if not first.config.computes_as(second.config):
        raise ConfigError(f"{second.path} is another model than {first.path}.")
    every = np.concatenate(list(tokens.values()))
    streams = embed(first, every), embed(second, every)
    ends = np.cumsum([len(rows) for rows in tokens.values()]).tolist()
    places = {
        name: slice(end - len(rows), end)
        for (name, rows), end in zip(tokens.items(), ends, strict=True)
    }
    layers, linears = [], LinearErrors(first, second)
    for number, block in enumerate(blocks(first.config)):
        layers.append(_run_both(number, block, linears, streams, places))
        progress(1)
    heads = _heads(first, second)
    texts = [
        _compare(name, rows, (first, second), (streams[0][place], streams[1][place]), heads)
        for (name, rows), place in zip(tokens.items(), places.values(), strict=True)
    ]
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
    streams: tuple[Floats, Floats],
    places: dict[str, slice],
) -> LayerError:
    """Run one block of both models over their streams, in place, and compare.

    `places` are the sequences of each text.
    """
    before = streams[0].copy()
    linears.run_block(number, block, streams[0])
    both = np.concatenate([before, streams[1]])  # the block's weights are converted once
    for _ in run_block(linears.candidate, block, both, QuantizedEmitter):
        pass
    alone, streams[1][:] = np.split(both, 2)
    change, added = alone - streams[0], streams[0] - before
    return LayerError(
        layer=number,
        kind=block.kind.value,
        relative_error=_relative(change, added),
        by_text={name: _relative(change[place], added[place]) for name, place in places.items()},
        stream_relative_error=_relative(streams[1] - streams[0], streams[0]),
    )


def _relative(difference: Floats, of: Floats) -> float:
    size = float(np.linalg.norm(of.ravel()))
    return float(np.linalg.norm(difference.ravel())) / max(size, 1e-30)


def _heads(first: Checkpoint, second: Checkpoint) -> tuple[Floats, Floats]:
    """Return both heads; one array if they are the same, as they are after every recipe here."""
    name = model_names(first.config).lm_head
    head = first.floats(name)
    one, other = (checkpoint[name].map().view(np.uint8) for checkpoint in (first, second))
    return head, head if np.array_equal(one, other) else second.floats(name)


def _compare(
    name: str,
    rows: Ids,
    checkpoints: tuple[Checkpoint, Checkpoint],
    streams: tuple[Floats, Floats],
    heads: tuple[Floats, Floats],
) -> TextQuality:
    """Compare the two next-token distributions over every position of one text."""
    tally = Tally(name)
    for index, sequence in enumerate(rows):
        first, second = (
            final_logits(checkpoint, stream[index, :-1], head)
            for checkpoint, stream, head in zip(checkpoints, streams, heads, strict=True)
        )
        tally.add(first, second, sequence[1:])
    return tally.result()
