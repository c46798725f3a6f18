"""Quality of a quantized checkpoint against its reference, before a GPU is rented.

Both run on the CPU over the same tokens, block by block (forward.py); a quantized checkpoint runs
in its own arithmetic (fake_quant.py). Perplexity is exp of the mean negative log-likelihood of the
next token; the divergence is KL(reference || candidate) in nats, averaged over positions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.tensor_names import Block, blocks, model_names
from nemotrt.errors import ConfigError
from nemotrt.quantize.fake_quant import QuantizedEmitter
from nemotrt.quantize.forward import Floats, embed, final_logits, run_block


@dataclass(frozen=True, slots=True)
class TextQuality:
    """What one text (a language, say) shows."""

    name: str
    num_tokens: int
    reference_perplexity: float
    perplexity: float
    mean_kl_divergence: float
    top1_agreement: float


@dataclass(frozen=True, slots=True)
class LayerError:
    """How far one block is off: alone, on the reference's input, and with all before it."""

    layer: int
    kind: str
    relative_error: float  # of what the block adds to the residual stream
    stream_relative_error: float  # of the residual stream after it


@dataclass(frozen=True, slots=True)
class Quality:
    """A candidate against a reference."""

    reference: str
    candidate: str
    quant_algo: str
    texts: tuple[TextQuality, ...]
    layers: tuple[LayerError, ...]  # worst first


def evaluate(
    reference: Path,
    candidate: Path,
    tokens: dict[str, npt.NDArray[np.int64]],
    progress: Callable[[int], None] = lambda num_blocks: None,
) -> Quality:
    """Return the quality of `candidate` against `reference` on each named [sequences, tokens].

    Raises:
        ConfigError: the two are not the same model, or a text is empty.
    """
    first, second = open_checkpoint(reference), open_checkpoint(candidate)
    if first.config != second.config:
        raise ConfigError(f"{candidate} is another model than {reference}.")
    for name, rows in tokens.items():
        if rows.size == 0:
            raise ConfigError(f"text {name} is shorter than one sequence; give more text.")
    every = np.concatenate(list(tokens.values()))
    streams = embed(first, every), embed(second, every)
    layers = []
    for number, block in enumerate(blocks(first.config)):
        layers.append(_run_both(number, block, first, second, streams))
        progress(1)
    texts, begin = [], 0
    heads = _heads(first, second)
    for name, rows in tokens.items():
        part = slice(begin, begin + len(rows))
        pair = streams[0][part], streams[1][part]
        texts.append(_compare(name, rows, (first, second), pair, heads))
        begin += len(rows)
    layers.sort(key=lambda layer: -layer.relative_error)
    algo = second.quant.algo.value
    return Quality(str(reference), str(candidate), algo, tuple(texts), tuple(layers))


def _run_both(
    number: int,
    block: Block,
    first: Checkpoint,
    second: Checkpoint,
    streams: tuple[Floats, Floats],
) -> LayerError:
    """Run one block of both models over their streams, in place, and compare."""
    before, alone = streams[0].copy(), streams[0].copy()
    _run(first, block, streams[0])
    _run(second, block, alone)
    _run(second, block, streams[1])
    return LayerError(
        layer=number,
        kind=block.kind.value,
        relative_error=_relative(alone - streams[0], streams[0] - before),
        stream_relative_error=_relative(streams[1] - streams[0], streams[0]),
    )


def _run(checkpoint: Checkpoint, block: Block, hidden: Floats) -> None:
    for _ in run_block(checkpoint, block, hidden, QuantizedEmitter):
        pass


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
    rows: npt.NDArray[np.int64],
    checkpoints: tuple[Checkpoint, Checkpoint],
    streams: tuple[Floats, Floats],
    heads: tuple[Floats, Floats],
) -> TextQuality:
    """Compare the two next-token distributions over every position of one text."""
    losses = [0.0, 0.0]
    divergence, agreed, count = 0.0, 0, 0
    for index, sequence in enumerate(rows):
        first, second = (
            _log_softmax(final_logits(checkpoint, stream[index, :-1], head))
            for checkpoint, stream, head in zip(checkpoints, streams, heads, strict=True)
        )
        positions = np.arange(len(sequence) - 1)
        losses[0] -= float(first[positions, sequence[1:]].sum(dtype=np.float64))
        losses[1] -= float(second[positions, sequence[1:]].sum(dtype=np.float64))
        divergence += float((np.exp(first) * (first - second)).sum(dtype=np.float64))
        agreed += int((first.argmax(-1) == second.argmax(-1)).sum())
        count += len(positions)
    return TextQuality(
        name=name,
        num_tokens=count,
        reference_perplexity=float(np.exp(losses[0] / count)),
        perplexity=float(np.exp(losses[1] / count)),
        mean_kl_divergence=divergence / count,
        top1_agreement=agreed / count,
    )


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
