"""Every metric of a run, from its requests."""

from nemotrt.profiles.metrics.catalogue import METRICS
from nemotrt.profiles.metrics.metric import Metric, NotComputableError
from nemotrt.profiles.metrics.run_view import RunView
from nemotrt.profiles.metrics.statistics import summarize
from nemotrt.profiles.result import MetricValue, RequestRecord


def steady_window(requests: tuple[RequestRecord, ...]) -> tuple[float, float] | None:
    """Return the time from the last warm-up's end to the last measured end, if there is any."""
    ends = [r.arrivals_s[-1] for r in requests if r.phase == "measured" and r.is_complete]
    if not ends:
        return None
    warm = [r.arrivals_s[-1] for r in requests if r.phase == "warm-up" and r.is_complete]
    start_s = max(warm) if warm else min(r.due_s for r in requests)
    return (start_s, max(ends)) if max(ends) > start_s else None


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
    if metric.is_distribution:
        return value.model_copy(update={"statistics": summarize(samples)})
    return value.model_copy(update={"value": samples[0]})
