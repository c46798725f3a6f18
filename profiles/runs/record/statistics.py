"""Mean, spread and percentiles of samples."""

from collections.abc import Sequence

import numpy as np

from nemotrt.files.model_file import Strict

PERCENTILES = (50, 90, 95, 99)


class Statistics(Strict):
    """A summary of samples; percentiles interpolate linearly (numpy's default)."""

    count: int
    mean: float
    std: float  # of the samples; 0 where there is one
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


def summarize(samples: Sequence[float]) -> Statistics:
    """Return the statistics of at least one sample."""
    values = np.asarray(samples, np.float64)
    percentiles = np.percentile(values, PERCENTILES)
    return Statistics(
        count=values.size,
        mean=float(values.mean()),
        std=float(values.std(ddof=1)) if values.size > 1 else 0.0,
        min=float(values.min()),
        max=float(values.max()),
        **{f"p{p}": float(v) for p, v in zip(PERCENTILES, percentiles, strict=True)},
    )
