"""Standard errors against the spread of many drawn texts, whose windows are correlated."""

import numpy as np
import pytest

from nemotrt.quantize.quality.figures.intervals import FEWEST_WINDOWS, standard_error
from nemotrt.quantize.quality.quality import Tally

NUM_TEXTS, NUM_WINDOWS, TOKENS = 400, 150, 32


def drawn_windows(rng: np.random.Generator, correlation: float) -> np.ndarray:
    """Sums of windows [texts, windows]: an AR(1) mean, the same for all tokens of a window."""
    steps = rng.standard_normal((NUM_TEXTS, NUM_WINDOWS))
    values = np.empty_like(steps)
    values[:, 0] = steps[:, 0]
    for place in range(1, NUM_WINDOWS):
        values[:, place] = correlation * values[:, place - 1]
        values[:, place] += np.sqrt(1 - correlation**2) * steps[:, place]
    return values * TOKENS


@pytest.mark.parametrize(("correlation", "least"), [(0.0, 0.9), (0.4, 0.8)])
def test_the_error_is_the_spread_of_the_means(correlation: float, least: float) -> None:
    """Tokens taken as independent would claim a fifth of it or less."""
    sums = drawn_windows(np.random.default_rng(1), correlation)
    counts = np.full(NUM_WINDOWS, float(TOKENS))
    means = sums.sum(axis=1) / counts.sum()
    told = np.array([standard_error(row, counts) for row in sums])
    assert least < told.mean() / means.std() < 1.1
    naive = np.sqrt((sums / TOKENS).var() / counts.sum())
    assert naive < 0.25 * told.mean()


def test_windows_without_correlation_by_hand() -> None:
    """As NumPy's standard error of the mean, once the order says nothing."""
    rng = np.random.default_rng(2)
    found = [
        standard_error(values, np.ones(1000)) / (values.std(ddof=1) / np.sqrt(1000))
        for values in rng.standard_normal((40, 1000))
    ]
    assert np.mean(found) == pytest.approx(1, abs=0.03)


def test_too_few_windows_have_no_error() -> None:
    few = np.arange(FEWEST_WINDOWS - 1.0)
    assert standard_error(few, np.ones(len(few))) is None
    assert standard_error(np.arange(8.0), np.ones(8)) is not None


def tally_of(num_windows: int, shift: float, seed: int = 3) -> Tally:
    """A candidate whose logits are the reference's and a little noise."""
    rng, tally = np.random.default_rng(seed), Tally("x", left_out=7)
    for _ in range(num_windows):
        logits = rng.standard_normal((20, 50)).astype(np.float32) * 3
        noise = rng.standard_normal(logits.shape).astype(np.float32) * np.float32(shift)
        tally.add(logits, logits + noise, rng.integers(0, 50, 20))
    return tally


def test_the_change_is_paired() -> None:
    """Its error is far below those of the two perplexities, which share the text."""
    found = tally_of(60, 0.02).result()
    errors = found.standard_errors
    assert errors is not None and found.num_windows == 60 and found.left_out_tokens == 7
    assert errors.change < 0.05 * errors.perplexity / found.perplexity
    assert 0 < errors.mean_kl_divergence < 0.2 * found.mean_kl_divergence
    same = tally_of(60, 0.0).result()
    assert same.standard_errors is not None and same.standard_errors.change == 0
    assert tally_of(5, 0.02).result().standard_errors is None


def test_windows_fed_by_positions_are_those_fed_at_once() -> None:
    """An engine gives one position of each window at a time."""
    rng = np.random.default_rng(4)
    logits = rng.standard_normal((9, 6, 30)).astype(np.float32)
    other, following = logits + np.float32(0.1) * logits[::-1], rng.integers(0, 30, (9, 6))
    by_window, by_place = Tally("x"), Tally("x")
    for window in range(9):
        by_window.add(logits[window], other[window], following[window])
    for place in range(6):
        by_place.add(logits[:, place], other[:, place], following[:, place], np.arange(9))
    one, two = by_window.result(), by_place.result()
    assert one.mean_kl_divergence == pytest.approx(two.mean_kl_divergence, rel=1e-12)
    assert one.standard_errors is not None and two.standard_errors is not None
    assert one.standard_errors.perplexity == pytest.approx(two.standard_errors.perplexity, rel=1e-9)
