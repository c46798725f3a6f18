"""Two models' scores of the same items: means, and the interval of the mean difference."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nemotrt.quantize.quality.figures.intervals import Z_95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference, candidate less reference, and its 95 % interval."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One metric of one task."""

    task: str
    metric: str
    num_items: int
    reference: float
    candidate: float
    interval: Interval | None  # None: the metric has no figure of each item, or there is one item


def paired_scores(reference: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[TaskScore]:
    """Return the scores of all tasks, in lm-eval's order.

    Args:
        reference: what lm-eval's simple_evaluate returns, with samples.
        candidate: the same of the other model, on the same items.
    """
    found = []
    for task, samples in reference["samples"].items():
        others = _by_item(candidate["samples"][task])
        results = reference["results"][task], candidate["results"][task]
        for key, value in results[0].items():
            metric, _, name = key.partition(",")
            if not name or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            pairs = [
                (sample.get(metric), others[item].get(metric))
                for item, sample in _by_item(samples).items()
                if item[0] == name and item in others
            ]
            own = metric if name == "none" else f"{metric} ({name})"
            other = float(results[1][key])
            found.append(TaskScore(task, own, len(pairs), float(value), other, interval(pairs)))
    return found


def _by_item(samples: list[dict[str, Any]]) -> dict[tuple[str, Any], dict[str, Any]]:
    return {(sample.get("filter", "none"), sample["doc_id"]): sample for sample in samples}


def interval(pairs: list[tuple[Any, Any]]) -> Interval | None:
    """Return the interval of a mean difference of items, which are taken as independent.

    Source: Miller (2024), "Adding Error Bars to Evals", paired differences.
    """
    if len(pairs) < 2 or not all(isinstance(x, int | float | bool) for pair in pairs for x in pair):
        return None
    differences = np.array([float(second) - float(first) for first, second in pairs])
    mean = float(differences.mean())
    half = Z_95 * float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return Interval(mean, mean - half, mean + half)
