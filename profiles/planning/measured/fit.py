"""Finds the corrections under which predictions meet measurements."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nemotrt.profiles.hardware.gpu_profile import Correction, Corrections, GpuProfile
from nemotrt.profiles.planning.measured.prediction import predicted_tokens_per_s
from nemotrt.profiles.planning.measured.rows import MeasuredRow
from nemotrt.profiles.planning.time.corrections import corrections_of, default_corrections

# What a handful of throughputs can identify; the rest keeps its default.
FITTED = (
    "gemm_bandwidth",
    "gemm_compute",
    "gemm_compute_8bit",
    "attention_bandwidth",
    "ssm_bandwidth",
)
SHARES = tuple(share / 100 for share in range(30, 96))
# How strongly a share is held at its default: at 0.3, a factor of e away costs as much as an
# error of 25 % in every row. It decides what the rows leave open.
PRIOR_WEIGHT = 0.3
# A fitted share is known to about a tenth: the residual error of rows is of that size.
BAND = 0.10
MAX_SWEEPS = 8


@dataclass(frozen=True, slots=True)
class FitResult:
    """The GPU with fitted corrections, and how far its rows were off before and after."""

    gpu: GpuProfile
    mape_before: float
    mape_after: float
    num_rows: int


def fit_corrections(gpu: GpuProfile, rows: Sequence[MeasuredRow], source: str) -> FitResult:
    """Return `gpu` with the corrections that bring its predictions nearest to `rows`.

    Coordinate descent over shares of 0.30 to 0.95 on the mean squared logarithm of
    predicted / measured throughput, with a pull towards the defaults.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("nothing to calibrate on")
    shares = {name: getattr(corrections_of(gpu), name).best for name in FITTED}
    defaults = {name: getattr(default_corrections(), name).best for name in FITTED}

    def loss(candidate: dict[str, float]) -> float:
        profile = _with_shares(gpu, candidate, source)
        errors = [_log_error(row, profile) ** 2 for row in rows]
        pull = sum(math.log(candidate[name] / defaults[name]) ** 2 for name in FITTED)
        return sum(errors) / len(errors) + PRIOR_WEIGHT * pull / len(FITTED)

    fitted = _descend(shares, loss)
    changed = {name: share for name, share in fitted.items() if share != defaults[name]}
    after = _with_shares(gpu, changed, source)
    return FitResult(after, mape(rows, gpu), mape(rows, after), len(rows))


def mape(rows: Sequence[MeasuredRow], gpu: GpuProfile) -> float:
    """Return the mean absolute relative error of the predicted throughput over `rows`."""
    return sum(abs(math.expm1(_log_error(row, gpu))) for row in rows) / len(rows)


def _log_error(row: MeasuredRow, gpu: GpuProfile) -> float:
    return math.log(predicted_tokens_per_s(row, gpu) / row.tokens_per_s)


def _descend(
    start: dict[str, float], loss: Callable[[dict[str, float]], float]
) -> dict[str, float]:
    """Return the shares at which no single change helps: golden-section steps by coordinate."""
    best, best_loss = dict(start), loss(start)
    for _ in range(MAX_SWEEPS):
        before = best_loss
        for name in best:
            step = 8
            while step:
                index = min(range(len(SHARES)), key=lambda i: abs(SHARES[i] - best[name]))
                moves = [SHARES[i] for i in (index - step, index + step) if 0 <= i < len(SHARES)]
                trials = [(loss({**best, name: share}), share) for share in moves]
                trial_loss, share = min(trials)
                if trial_loss < best_loss:
                    best, best_loss = {**best, name: share}, trial_loss
                else:
                    step //= 2
        if before - best_loss < 1e-7:
            break
    return best


def _with_shares(gpu: GpuProfile, shares: dict[str, float], source: str) -> GpuProfile:
    """Return the GPU with these corrections, each with its band."""
    corrections = {
        name: Correction(
            low=round(share * (1 - BAND), 3),
            best=share,
            high=min(round(share * (1 + BAND), 3), 1.0),
            source=source,
        )
        for name, share in shares.items()
    }
    merged = Corrections(**corrections).over(gpu.corrections)
    return gpu.model_copy(update={"corrections": merged})
