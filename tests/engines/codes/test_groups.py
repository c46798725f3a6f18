"""4-bit groups: codes and scales mean the weight, with less error than rounding to nearest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.checkpoint.codes.groups import NO_WEIGHTS, round_groups
from nemotrt.engines.model.numerics import GROUP_SIZES


def rounded(
    weights: np.ndarray, size: int, counts: np.ndarray = NO_WEIGHTS
) -> tuple[np.ndarray, np.ndarray]:
    codes = np.full(weights.shape, 99, np.int8)
    scales = np.full((len(weights), -(-weights.shape[1] // size)), np.nan, np.float32)
    round_groups(weights, counts, size, codes, scales)
    return codes, scales


def decoded(codes: np.ndarray, scales: np.ndarray, size: int) -> np.ndarray:
    return codes * np.repeat(scales, size, axis=1)[:, : codes.shape[1]]


def nearest(weights: np.ndarray, size: int) -> np.ndarray:
    """Round to nearest with the scale amax / 7, as quantizers without a search do."""
    groups = weights.reshape(len(weights), -1, size)
    scale = np.abs(groups).max(axis=2, keepdims=True) / 7
    return (np.rint(groups / scale) * scale).reshape(weights.shape)


def error(found: np.ndarray, exact: np.ndarray, counts: float | np.ndarray = 1) -> float:
    return float(((found - exact) ** 2 * counts).sum())


DRAWS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy tails": lambda rng, shape: rng.standard_t(4, shape),
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape),
}


@pytest.mark.parametrize("size", GROUP_SIZES)
@pytest.mark.parametrize("draw", DRAWS)
def test_the_search_beats_rounding_to_nearest(draw: str, size: int) -> None:
    weights = DRAWS[draw](np.random.default_rng(1), (64, 512)).astype(np.float32)
    found = decoded(*rounded(weights, size), size)
    gain = error(nearest(weights, size), weights) / error(found, weights)
    assert gain > {"normal": 1.15, "heavy tails": 1.15, "uniform": 0.999}[draw]


def test_the_scale_is_nearly_the_best_that_there_is() -> None:
    """Against a search of 2,000 scales for each group, by another algorithm."""
    weights = np.random.default_rng(3).standard_normal((4, 256)).astype(np.float32)
    found = error(decoded(*rounded(weights, 32), 32), weights)
    best = 0.0
    for group in weights.reshape(-1, 32):
        scales = np.abs(group).max() / np.linspace(4, 9, 2000)[:, None]
        tries = np.clip(np.rint(group / scales), -8, 7) * scales
        best += ((tries - group) ** 2).sum(axis=1).min()
    assert found < 1.02 * best


def test_inputs_that_count_more_are_rounded_better() -> None:
    rng = np.random.default_rng(4)
    weights = rng.standard_normal((32, 256)).astype(np.float32)
    counts = rng.gamma(0.3, 1, 256).astype(np.float32)
    plain, weighted = (decoded(*rounded(weights, 32, c), 32) for c in (NO_WEIGHTS, counts))
    assert error(weighted, weights, counts) < 0.9 * error(plain, weights, counts)


@given(
    rows=st.integers(1, 3),
    columns=st.integers(1, 100),
    exponent=st.integers(-60, 60),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_any_weight_is_off_by_a_step_at_most(
    rows: int, columns: int, exponent: int, seed: int
) -> None:
    """Of any shape and size: codes are codes, scales are what bfloat16 holds, zeros stay zeros."""
    rng = np.random.default_rng(seed)
    weights = np.ldexp(rng.standard_normal((rows, columns)), exponent).astype(np.float32)
    weights[rng.random(weights.shape) < 0.3] = 0
    codes, scales = rounded(weights, 32)
    assert codes.min() >= -8 and codes.max() <= 7
    assert (scales.view(np.uint32) & 0xFFFF == 0).all() and (scales > 0).all()
    found = decoded(codes, scales, 32)
    assert (found[weights == 0] == 0).all()
    step = np.repeat(scales, 32, axis=1)[:, :columns]
    assert (np.abs(found - weights) <= 2.5 * step).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows_in_its_scale(bad: float) -> None:
    weights = np.ones((2, 96), np.float32)
    weights[1, 40] = bad
    scales = rounded(weights, 32)[1]
    assert np.isfinite(scales).tolist() == [[True] * 3, [True, False, True]]
