"""Rounds weights to 4 bits so that later inputs of a row make up for the errors of earlier ones.

For each linear the second moments H of its inputs are summed over a text. The inputs are rounded
one after the other; the error of each is spread over those that follow, by the inverse of H, so
that the output changes least. Blocks are rounded in order, each on what the rounded ones before it
give. Only moments within SPAN adjoining inputs count, which bounds the memory and the work.

Source: GPTQ (Frantar et al., 2022), algorithm 1, with the scale of each group found by the search
of `round_groups`, weighted by the diagonal of H, when the group's turn comes.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.codes.groups import round_groups
from nemotrt.engines.checkpoint.linear_weight import spread
from nemotrt.engines.checkpoint.quantized.decoded import decoded
from nemotrt.engines.model.tensor_names import blocks
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.calibration.calibrate import CalibrationEmitter
from nemotrt.quantize.calibration.forward import Floats, SequenceEmitter, embed, run_block
from nemotrt.quantize.conversion.convert import read_rounded

Ids = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int8]
SPAN = 1024
# Of the mean of H's diagonal, added to it. Source: benchmarks/four_bits.py --compensation on the
# trained tiny model, 2026-11-30: 3 % (English) and 7 % (Japanese) less divergence than with 0.01.
DAMPING = 0.1
ROWS = 4096  # rounded at once


def compensate(
    checkpoint: Checkpoint,
    weights: list[str],
    group_size: int,
    tokens: Ids,
    folder: Path,
    progress: Callable[[int], None] = lambda num_blocks: None,
) -> dict[str, Path]:
    """Round the weights; return where each one's codes and scales are, below `folder`.

    Memory is that of the largest block as floats, and of 4 bytes for each token and channel.

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
    hidden, found = embed(checkpoint, tokens), {}
    for number, block in enumerate(blocks(checkpoint.config)):
        names = [name for name in weights if name.startswith(block.prefix)]
        current = checkpoint
        if names:
            moments: dict[str, list[Floats]] = {}
            for taps in run_block(checkpoint, block, hidden.copy(), CalibrationEmitter):
                for name in names:
                    _add_moments(moments.setdefault(name, []), taps[name])
            for place, name in enumerate(names):
                target = folder / f"{number}-{place}"
                target.mkdir()
                weight, own = checkpoint.floats(name), moments.pop(name)
                if not all(np.isfinite(part).all() for part in own):
                    raise ArtefactError(f"the inputs of {name} overflow on this text.")
                codes, scales = rounded(weight, own, group_size)
                np.save(target / "0.npy", codes)
                np.save(target / "1.npy", scales)
                found[name] = target
            current = _with_rounded(checkpoint, {name: found[name] for name in names})
        for _ in run_block(current, block, hidden, SequenceEmitter):
            pass
        progress(1)
    return found


def _add_moments(moments: list[Floats], inputs: Floats) -> None:
    """Add each span's sum of products of `inputs` [..., in] to `moments`."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    for place, begin in enumerate(range(0, flat.shape[1], SPAN)):
        part = flat[:, begin : begin + SPAN]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is named later
            products: Floats = part.T @ part
        if place < len(moments):
            moments[place] += products
        else:
            moments.append(products)


def rounded(weight: Floats, moments: list[Floats], group_size: int) -> tuple[Codes, Floats]:
    """Return int8 codes [out, in] and scales [out, groups] of a weight [out, in].

    Args:
        weight: the exact weight.
        moments: of each SPAN of inputs, the sum of their products.
        group_size: inputs that share a scale.
    """
    codes = np.empty(weight.shape, np.int8)
    scales = np.empty((len(weight), -(-weight.shape[1] // group_size)), np.float32)
    for place, own in enumerate(moments):
        span = slice(place * SPAN, place * SPAN + len(own))
        groups = slice(span.start // group_size, -(-span.stop // group_size))
        spreading, counts = _spreading(own)
        for begin in range(0, len(weight), ROWS):
            rows = slice(begin, begin + ROWS)
            part = weight[rows, span].copy()
            codes[rows, span], scales[rows, groups] = _round_span(
                part, spreading, counts, group_size
            )
    return codes, scales


def _spreading(moments: Floats) -> tuple[Floats, Floats]:
    """Return the upper factor of the inverse of damped moments, and how much each input counts."""
    damped = moments.astype(np.float64)
    diagonal = np.diag(damped).copy()
    diagonal[diagonal == 0] = 1  # an input that was always 0: its weight does not matter
    np.fill_diagonal(damped, diagonal + DAMPING * diagonal.mean())
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    return factor.astype(np.float32), np.diag(damped).astype(np.float32)


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
