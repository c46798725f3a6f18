"""The divergence of the whole model when one linear alone is quantized, for every linear at once.

Nothing is estimated: the model with that one linear in 4 bits runs to its logits. All these models
go through a block together, so its weights are read once: before their own linear they are one
stream, the exact model's. Linears that engines fuse are one unit, with the same bits.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.codes.groups import NO_WEIGHTS, round_groups
from nemotrt.engines.checkpoint.linear_weight import spread
from nemotrt.engines.checkpoint.quantized.decoded import decoded
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.tensor_names import Block, blocks
from nemotrt.quantize.calibration.forward import Floats
from nemotrt.quantize.quality.figures.token_figures import token_figures
from nemotrt.quantize.quality.running.opened import opened_block, opened_head
from nemotrt.quantize.quality.running.streams import Stream
from nemotrt.quantize.recipes.selection import fused_together

Ids = npt.NDArray[np.int64]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Unit:
    """Weights that get the same bits, and what 4 bits of them alone cost."""

    weights: tuple[str, ...]
    divergence: float = 0.0  # mean KL of the next token, nats


def units(config: ModelConfig, weights: tuple[str, ...]) -> list[Unit]:
    """Return the units of a selection's weights, in model order."""
    return [Unit(names) for names in fused_together(config, weights)]


def measure(
    checkpoint: Checkpoint,
    every: list[Unit],
    group_size: int,
    tokens: Ids,
    progress: Progress = lambda num_steps: None,
) -> list[Unit]:
    """Return the units with their divergences, in the same order.

    Args:
        checkpoint: the 16 bit model.
        every: its units.
        group_size: inputs that share a scale.
        tokens: [sequences, tokens] that the divergence is a mean over.
        progress: told 1 for each block and each text of the head.
    """
    num_tokens = tokens.shape[1]
    with tempfile.TemporaryDirectory(prefix="nemotrt-") as folder:
        exact = Stream(Path(folder) / "exact", checkpoint, tokens)
        forks: list[tuple[Unit, Stream]] = []
        for block in blocks(checkpoint.config):
            before = len(forks)
            for unit in every:
                if unit.weights[0].startswith(block.prefix):
                    fork = Stream(Path(folder) / str(len(forks)), checkpoint, tokens)
                    other = with_int4(checkpoint, unit.weights, group_size)
                    _advance(other, block, [exact], [fork], num_tokens)
                    forks.append((unit, fork))
            earlier = [exact, *(stream for _, stream in forks[:before])]
            _advance(checkpoint, block, earlier, earlier, num_tokens)
            progress(1)
        found = dict(_divergences(checkpoint, tokens, exact, forks))
        progress(1)
    return [replace(unit, divergence=found[unit.weights]) for unit in every]


def _advance(
    checkpoint: Checkpoint,
    block: Block,
    sources: list[Stream],
    targets: list[Stream],
    num_tokens: int,
) -> None:
    """Run a block from each source to its target."""
    with opened_block(checkpoint, block, num_tokens) as run:
        for source, target in zip(sources, targets, strict=True):
            for row in range(len(source)):
                target[row] = run(source[row])


def _divergences(
    checkpoint: Checkpoint, tokens: Ids, exact: Stream, forks: list[tuple[Unit, Stream]]
) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield the mean divergence of each unit's model from the exact one."""
    sums = np.zeros(len(forks))
    with opened_head(checkpoint, tokens.shape[1]) as head:
        for row, sequence in enumerate(tokens):
            reference = head(exact[row][:-1]).copy()
            for place, (_, stream) in enumerate(forks):
                figures = token_figures(reference, head(stream[row][:-1]), sequence[1:])
                sums[place] += figures[:, 2].sum()
    for (unit, _), total in zip(forks, sums.tolist(), strict=True):
        yield unit.weights, total / tokens[:, 1:].size


def with_int4(checkpoint: Checkpoint, weights: tuple[str, ...], group_size: int) -> Checkpoint:
    """Return the checkpoint with these weights read as their 4 bits stand for."""

    def rounded(name: str) -> Callable[[slice], Floats]:
        def rows(part: slice) -> Floats:
            exact = checkpoint.floats(name, part)
            codes = np.empty(exact.shape, np.int8)
            scales = np.empty((len(exact), -(-exact.shape[1] // group_size)), np.float32)
            round_groups(exact, NO_WEIGHTS, group_size, codes, scales)
            values: Floats = codes * spread(scales, exact.shape[1])
            return values

        return rows

    changed = {
        name: decoded(name, checkpoint[name].shape, (checkpoint[name],), rounded(name))
        for name in weights
    }
    return replace(checkpoint, tensors=checkpoint.tensors | changed)
