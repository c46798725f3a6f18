"""Every metric of a run, from its requests."""

import math

from nemotrt.profiles.load.exchange import Ending
from nemotrt.profiles.runs.metrics.catalogue import METRICS
from nemotrt.profiles.runs.metrics.metric import Metric, NotComputableError
from nemotrt.profiles.runs.metrics.run_view import RunView
from nemotrt.profiles.runs.record.result import MetricValue, RequestRecord
from nemotrt.profiles.runs.record.statistics import summarize


def steady_window(
    requests: tuple[RequestRecord, ...], *, runs_down: bool = False, is_cut: bool = False
) -> tuple[float, float] | None:
    """Return the time in which the load was full, None where there was none.

    It starts when the last warm-up has ended and ends with the last measured request.

    Args:
        requests: all of the run.
        runs_down: nothing keeps the load up at the end, as in other tools' runs: then the window
            ends when the last request is sent, and without a warm-up starts with the first end.
        is_cut: the run was cut short: what had arrived until then counts.
    """
    measured = [r for r in requests if r.phase == "measured" and r.arrivals_s and not r.error]
    ends = [r.arrivals_s[-1] for r in measured if r.is_complete]
    warm = [r for r in requests if r.phase == "warm-up"]
    if not (measured if is_cut else ends):
        return None
    if is_cut and any(r.ending is Ending.OPEN for r in warm):
        return None
    first_due_s = min(r.due_s for r in requests)
    warm_ends = [r.arrivals_s[-1] for r in warm if r.is_complete]
    start_s = max(warm_ends) if warm_ends else first_due_s
    if is_cut:
        end_s = max(r.arrivals_s[-1] for r in measured)
    elif not runs_down:
        end_s = max(ends)
    else:
        start_s = max(warm_ends) if warm_ends else min(ends)
        end_s = max(r.due_s for r in measured)
        if end_s <= start_s:  # a run of one turn has no such time; then the whole of it counts
            start_s, end_s = first_due_s, max(ends)
    return (start_s, end_s) if end_s > start_s else None


def evaluate(view: RunView) -> dict[str, MetricValue]:
    """Return every metric by name."""
    return {metric.name: _evaluated(metric, view) for metric in METRICS}


def _evaluated(metric: Metric, view: RunView) -> MetricValue:
    """Return a metric's value, or why it has none."""
    value = MetricValue(
        title=metric.title,
        unit=metric.unit,
        formula=metric.formula,
        source=metric.source,
        is_better_high=metric.is_better_high,
    )
    try:
        samples = metric.samples(view)
    except NotComputableError as error:
        return value.model_copy(update={"not_computable": error.message})
    if not all(math.isfinite(sample) for sample in samples):
        reason = f"{metric.name} has samples that are no numbers."
        return value.model_copy(update={"not_computable": reason})
    if metric.is_distribution:
        return value.model_copy(update={"statistics": summarize(samples)})
    return value.model_copy(update={"value": samples[0]})
