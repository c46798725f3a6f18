"""Rounds weights to 4 bits so that later inputs of a row make up for the errors of earlier ones.

For each linear the second moments H of its inputs are summed over a text. The inputs are rounded
one after the other; the error of each is spread over those that follow, by the inverse of H, so
that the output changes least. Linears are rounded in order, each on what the rounded ones before
it give. Before, its weights are moved so that they make up for what is wrong with that.
Only moments within SPAN adjoining inputs count, which bounds the memory and the work.

Source: GPTQ (Frantar et al., 2022), algorithm 1, with the scale of each group found by the search
of `round_groups`, weighted by the diagonal of H, when the group's turn comes; then `refine`. Making
up for inputs: GPTAQ (Li et al., 2025), here in closed form before the rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.codes.groups import round_groups
from nemotrt.engines.checkpoint.linear_weight import spread
from nemotrt.engines.checkpoint.quantized.decoded import decoded
from nemotrt.engines.model.tensor_names import Block, blocks
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.calibration.calibrate import CalibrationEmitter
from nemotrt.quantize.calibration.forward import Floats, SequenceEmitter, embed, run_block
from nemotrt.quantize.calibration.refine import refine
from nemotrt.quantize.conversion.convert import read_rounded
from nemotrt.quantize.recipes.selection import fused_together

Ids = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
SPAN = 1024
# Of the mean of H's diagonal, added to it. Source: benchmarks/four_bits.py --compensation on the
# trained tiny model, 2026-11-30: 3 % (English) and 7 % (Japanese) less divergence than with 0.01.
DAMPING = 0.1
ROWS = 4096  # rounded at once
# Of all codes and scales, after the first round. Source: the same model, 2026-12-01: 4 % (Japanese)
# to 7 % (English) less divergence.
SWEEPS = 3


def compensate(
    checkpoint: Checkpoint,
    weights: list[str],
    group_size: int,
    tokens: Ids,
    folder: Path,
    progress: Callable[[int], None] = lambda num_blocks: None,
) -> dict[str, Path]:
    """Round the weights; return where each one's codes and scales are, below `folder`.

    Memory is that of the largest block as floats, twice, and 16 bytes for each token and channel.

    Args:
        checkpoint: the 16 bit model.
        weights: those to round, int8 codes [out, in] in `0.npy`, scales [out, groups] in `1.npy`.
        group_size: inputs that share a scale; it divides SPAN.
        tokens: [sequences, tokens] of the calibration text.
        folder: an empty folder.
        progress: told 1 for each block.

    Raises:
        ConfigError: the model has experts, of which too few see each token.
        ArtefactError: a weight holds NaN or infinity, or inputs overflow on this text.
    """
    if checkpoint.config.moe is not None:
        raise ConfigError("--compensate is not for models with experts; leave it away.")
    found: dict[str, Path] = {}
    hidden = embed(checkpoint, tokens)
    exact = hidden.copy()
    every = fused_together(checkpoint.config, tuple(weights))
    for number, block in enumerate(blocks(checkpoint.config)):
        current = checkpoint
        for unit in (unit for unit in every if unit[0].startswith(block.prefix)):
            products = _products(checkpoint, current, block, exact, hidden, unit)
            for place, name in enumerate(unit):
                target = folder / f"{number}-{len(found)}-{place}"
                target.mkdir()
                if not all(np.isfinite(part).all() for both in products[name] for part in both):
                    raise ArtefactError(f"the inputs of {name} overflow on this text.")
                moments, missing = products.pop(name)
                codes, scales = rounded(checkpoint.floats(name), moments, group_size, missing)
                np.save(target / "0.npy", codes)
                np.save(target / "1.npy", scales)
                found[name] = target
            current = _with_rounded(current, {name: found[name] for name in unit})
        for model, stream in ((checkpoint, exact), (current, hidden)):
            for _ in run_block(model, block, stream, SequenceEmitter):
                pass
        progress(1)
    return found


def _products(
    checkpoint: Checkpoint,
    current: Checkpoint,
    block: Block,
    exact: Floats,
    hidden: Floats,
    names: tuple[str, ...],
) -> dict[str, tuple[list[Floats], list[Floats]]]:
    """Return for each linear the moments of its inputs, and their products with what is missing.

    Its inputs are those of the model `current` on the stream `hidden`. What they lack are the exact
    model's on the stream `exact`, less them. Both are sums for each SPAN of inputs, [in, in].
    """
    found: dict[str, tuple[list[Floats], list[Floats]]] = {name: ([], []) for name in names}
    both = (
        run_block(model, block, stream.copy(), CalibrationEmitter)
        for model, stream in ((current, hidden), (checkpoint, exact))
    )
    for taps, exact_taps in zip(*both, strict=True):
        for name in names:
            inputs, moments = taps[name], found[name]
            _add_products(moments[0], inputs, inputs)
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is named later
                missing = exact_taps[name] - inputs
            _add_products(moments[1], missing, inputs)
    return found


def _add_products(sums: list[Floats], first: Floats, second: Floats) -> None:
    """Add each span's sum of products of two [..., in] to `sums`."""
    first, second = (values.reshape(-1, values.shape[-1]) for values in (first, second))
    for place, begin in enumerate(range(0, first.shape[1], SPAN)):
        span = slice(begin, begin + SPAN)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is named later
            products: Floats = first[:, span].T @ second[:, span]
        if place < len(sums):
            sums[place] += products
        else:
            sums.append(products)


def rounded(
    weight: Floats, moments: list[Floats], group_size: int, missing: Sequence[Floats] = ()
) -> tuple[Codes, Floats]:
    """Return int8 codes [out, in] and scales [out, groups] of a weight [out, in].

    Args:
        weight: the exact weight.
        moments: of each SPAN of inputs, the sum of their products.
        group_size: inputs that share a scale.
        missing: likewise of what the inputs lack, with the inputs; none if nothing.
    """
    codes = np.empty(weight.shape, np.int8)
    scales = np.empty((len(weight), -(-weight.shape[1] // group_size)), np.float32)
    for place, own in enumerate(moments):
        span = slice(place * SPAN, place * SPAN + len(own))
        groups = slice(span.start // group_size, -(-span.stop // group_size))
        damped = _damped(own)
        spreading = _spreading(damped)
        making_up = np.linalg.solve(damped, missing[place].T).T if missing else None
        for begin in range(0, len(weight), ROWS):
            rows = slice(begin, begin + ROWS)
            part = weight[rows, span]
            if making_up is not None:
                part = part + part @ making_up
            found = _round_span(part.copy(), spreading, np.diag(damped).copy(), group_size)
            refine(part, *found, damped, group_size, SWEEPS)
            codes[rows, span], scales[rows, groups] = found
    return codes, scales


def _damped(moments: Floats) -> Floats:
    """Return moments with a share of their mean diagonal added to it."""
    damped = moments.copy()
    diagonal = np.diag(damped).astype(np.float64)
    diagonal[diagonal == 0] = 1  # an input that was always 0: its weight does not matter
    np.fill_diagonal(damped, diagonal + DAMPING * diagonal.mean())
    return damped


def _spreading(damped: Floats) -> Floats:
    """Return the upper factor of the inverse of damped moments."""
    factor: Floats = np.linalg.cholesky(np.linalg.inv(damped.astype(np.float64))).T
    return factor.astype(np.float32)


def _round_span(
    part: Floats, spreading: Floats, counts: Floats, group_size: int
) -> tuple[Codes, Floats]:
    """Return codes and scales of some rows' span; `part` is worked on."""
    size = part.shape[1]
    codes = np.empty(part.shape, np.int8)
    scales = np.empty((len(part), -(-size // group_size)), np.float32)
    for place, begin in enumerate(range(0, size, group_size)):
        end = min(begin + group_size, size)
        group, own = np.ascontiguousarray(part[:, begin:end]), spreading[begin:end]
        found = np.empty((len(part), 1), np.float32)
        work = np.empty(group.shape, np.int8)
        round_groups(group, counts[begin:end], group_size, work, found)
        scale = found[:, 0]
        scales[:, place] = scale
        errors = np.empty_like(group)
        for i in range(end - begin):
            code = np.clip(np.rint(group[:, i] / scale), -8, 7)
            codes[:, begin + i] = code
            errors[:, i] = (group[:, i] - code * scale) / own[i, begin + i]
            group[:, i:] -= errors[:, i : i + 1] * own[i, begin + i : end]
        part[:, end:] -= errors @ own[:, end:]
    return codes, scales


def _with_rounded(checkpoint: Checkpoint, found: dict[str, Path]) -> Checkpoint:
    """Return the checkpoint with these weights read as their codes stand for."""

    def reading(folder: Path, columns: int) -> Callable[[slice], Floats]:
        def rows(part: slice) -> Floats:
            codes, scales = read_rounded(folder, part)
            values: Floats = codes * spread(scales, columns)
            return values

        return rows

    changed = {
        name: decoded(
            name,
            checkpoint[name].shape,
            (checkpoint[name],),
            reading(folder, checkpoint[name].shape[1]),
        )
        for name, folder in found.items()
    }
    return replace(checkpoint, tensors=checkpoint.tensors | changed)
