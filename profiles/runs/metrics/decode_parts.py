"""Where the time of an answer's tokens went, as far as arrivals tell from outside.

A decode step reads the weights, the states, and the KV cache of all running sequences; the last
grows with every token. So the slope of the time between tokens over the tokens that are held is
attention's share, and the rest is what does not grow: weights, states, elementwise work, overhead.
Gaps in which another request was prefilled are left out of that, and give the third part.
Source: the terms are the planner's (`planning/operators.py`); the fit is least squares with
standard errors widened for correlated residuals, as in `verdict/ratio.py`.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nemotrt.profiles.runs.metrics.student import confident_reach
from nemotrt.profiles.runs.record.result import ProfileResult, RequestRecord

Array = npt.NDArray[np.float64]
MIN_GAPS = 50
NUM_BINS = 200
# A share that is not known to within this part of a step is not told.
MAX_REACH_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class DecodeParts:
    """Milliseconds of a token, split; `step_ms` + `prefill_ms` is the mean time per token.

    `attention_ms` is part of `step_ms` and right to within `attention_reach_ms` (95 %); it is None
    where noise hides the slope, or the held tokens hardly change.
    """

    num_gaps: int
    held_tokens: float  # mean, of all running sequences together
    step_ms: float
    attention_ms: float | None
    attention_reach_ms: float
    prefill_ms: float


@dataclass(frozen=True, slots=True)
class _Line:
    """A fitted straight line: its slope, the slope's standard error, and the means it goes by.

    `freedom` is of that error: the points that were fitted, less two.
    """

    slope: float
    error: float
    freedom: float
    mean_x: float
    mean_y: float


def decode_parts(result: ProfileResult) -> DecodeParts | None:
    """Return the parts over the steady window, None where there are too few gaps to tell."""
    tpot = result.metrics["tpot_ms"].statistics
    if result.window_s is None or tpot is None:
        return None
    running = [request for request in result.requests if request.arrivals_s]
    starts_s, gaps_ms = _gaps(running, *result.window_s)
    is_alone = _without_prefill(running, starts_s, starts_s + gaps_ms[:, 1] / 1e3)
    starts_s, step_ms = starts_s[is_alone], gaps_ms[is_alone, 0]
    if starts_s.size < MIN_GAPS:
        return None
    line = _fit(_held_tokens(running, starts_s), step_ms)
    reach = confident_reach(line.freedom) * line.error
    attention_ms, reach_ms = line.slope * line.mean_x, reach * line.mean_x
    is_told = reach_ms <= MAX_REACH_SHARE * line.mean_y
    return DecodeParts(
        num_gaps=int(starts_s.size),
        held_tokens=line.mean_x,
        step_ms=line.mean_y,
        attention_ms=attention_ms if is_told else None,
        attention_reach_ms=reach_ms,
        prefill_ms=tpot.mean - line.mean_y,
    )


def _gaps(requests: list[RequestRecord], start_s: float, end_s: float) -> tuple[Array, Array]:
    """Return the starts of the gaps between responses in the window, in order of time.

    Beside each, [gaps, 2]: milliseconds a token, and milliseconds.
    """
    starts, rows = [], []
    for request in requests:
        times = np.array(request.arrivals_s)
        tokens = np.array(request.arrival_tokens, np.float64)
        gaps_ms = 1e3 * np.diff(times)
        inside = (times[:-1] >= start_s) & (times[1:] <= end_s) & (tokens[1:] > 0)
        starts.append(times[:-1][inside])
        rows.append(np.stack([gaps_ms[inside] / tokens[1:][inside], gaps_ms[inside]], axis=1))
    found = np.concatenate(starts)
    order = np.argsort(found, kind="stable")
    return found[order], np.concatenate(rows)[order]


def _without_prefill(requests: list[RequestRecord], starts_s: Array, ends_s: Array) -> Array:
    """Return which of the times hold no request between its start and its first token."""
    begun = [request.admitted_s or request.sent_s or request.due_s for request in requests]
    first = np.sort([request.arrivals_s[0] for request in requests])
    num_begun = np.searchsorted(np.sort(begun), ends_s, side="right")
    return np.asarray(num_begun == np.searchsorted(first, starts_s, side="right"))


def _held_tokens(requests: list[RequestRecord], at_s: Array) -> Array:
    """Return the tokens whose state is held at each time, prompts and answers together."""
    times, changes = [], []
    for request in requests:
        counts = np.array(request.arrival_tokens, np.float64)
        counts[0] += request.isl
        times += [np.array(request.arrivals_s), np.array(request.arrivals_s[-1:])]
        changes += [counts, -counts.sum(keepdims=True)]
    moments, change = np.concatenate(times), np.concatenate(changes)
    order = np.argsort(moments, kind="stable")
    held = np.concatenate(([0.0], np.cumsum(change[order])))
    return np.asarray(held[np.searchsorted(moments[order], at_s, side="right")])


def _fit(x: Array, y: Array) -> _Line:
    """Return the line through bins of neighbours in time."""
    parts = np.array_split(np.arange(x.size), min(NUM_BINS, x.size // 5))
    xs, ys = (np.array([values[part].mean() for part in parts]) for values in (x, y))
    off = xs - xs.mean()
    spread = float(off @ off)
    if spread <= 1e-9 * xs.size * max(float(xs.mean()) ** 2, 1e-9):
        return _Line(0.0, math.inf, float(xs.size - 2), float(xs.mean()), float(ys.mean()))
    slope = float(off @ ys) / spread
    rest = ys - ys.mean() - slope * off
    variance = float(rest @ rest) / max(xs.size - 2, 1) / spread
    neighbours = float(rest[1:] @ rest[:-1]) / max(float(rest @ rest), 1e-30)
    correlation = min(max(neighbours, 0.0), 0.9)
    error = math.sqrt(variance * (1 + correlation) / (1 - correlation))
    return _Line(slope, error, float(xs.size - 2), float(xs.mean()), float(ys.mean()))
