"""The standard error of a mean over tokens, when tokens near each other are alike.

Tokens of one window are correlated, and so are windows that adjoin in a text. The sums of a window
are therefore one observation, and covariances of windows up to a few apart count too. Sources:
Newey and West (1987), Bartlett's weights, and their lag of 1994, 4 (n / 100)^(2/9); Miller (2024),
"Adding Error Bars to Evals", equations of clusters and of paired differences.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FEWEST_WINDOWS = 8  # below it no error is told: it would itself be off by half
Z_95 = 1.959964  # standard errors on either side of a mean that 95 % lie within

Sums = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StandardErrors:
    """One standard error of each mean; the change is paired, text by text of both models."""

    reference_perplexity: float
    perplexity: float
    change: float  # of the ratio of the perplexities
    mean_kl_divergence: float
    top1_agreement: float


def standard_error(sums: Sums, counts: Sums) -> float | None:
    """Return the standard error of sum(sums) / sum(counts); None of fewer than FEWEST_WINDOWS.

    Args:
        sums: what each window adds up to, in the text's order.
        counts: the tokens of each.
    """
    num_windows = len(sums)
    if num_windows < FEWEST_WINDOWS:
        return None
    left = sums - counts * (sums.sum() / counts.sum())
    variance = float(left @ left)
    num_lags = min(num_windows - 1, math.floor(4 * (num_windows / 100) ** (2 / 9)))
    for lag in range(1, num_lags + 1):
        weight = 1 - lag / (num_lags + 1)
        variance += 2 * weight * float(left[lag:] @ left[:-lag])
    variance *= num_windows / (num_windows - 1)
    return math.sqrt(max(variance, 0.0)) / float(counts.sum())
