"""Whether runs are what they say: each measured once, and its figures those of its requests."""

import math
from collections.abc import Hashable, Sequence

from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.profiles.runs.metrics.metric import NotComputableError
from nemotrt.profiles.runs.metrics.run_view import RunView
from nemotrt.profiles.runs.metrics.window_metrics import tokens_per_s
from nemotrt.profiles.runs.record.result import ProfileResult

SAME = 1e-6  # relative: what is rounded in a file changes less


def check_records(candidates: Sequence[ProfileResult], baselines: Sequence[ProfileResult]) -> None:
    """Raise an error unless a verdict on these runs rests on what was measured.

    A copied run is no repeat: copies agree exactly, and their interval would have no width.

    Raises:
        ConfigError: a side has a run twice.
        ArtefactError: a run's throughput is not what its requests give.
    """
    for side, runs in (("candidate", candidates), ("baseline", baselines)):
        seen: set[Hashable] = set()
        for run in runs:
            if run.requests and _key(run) in seen:
                raise ConfigError(
                    f"the {side} has the run that started at {run.started_at} twice: a copy is no "
                    "repeat. Remove it, or measure again."
                )
            seen.add(_key(run))
            _check_rate(side, run)


def shared_runs(
    candidates: Sequence[ProfileResult], baselines: Sequence[ProfileResult]
) -> list[str]:
    """Return when the runs started that both sides have: they say nothing of a difference."""
    theirs = {_key(run) for run in baselines}
    return [run.started_at for run in candidates if _key(run) in theirs]


def _key(run: ProfileResult) -> Hashable:
    """Return what two runs never share."""
    return run.started_at, run.clock_start_s, run.duration_s, run.requests


def _check_rate(side: str, run: ProfileResult) -> None:
    """Raise ArtefactError if a run's throughput does not follow from its requests."""
    entry = run.metrics.get("tokens_per_s")
    if entry is None or entry.value is None or run.window_s is None:
        return
    try:
        [found] = tokens_per_s(RunView(run.requests, run.steps, *run.window_s, None))
    except NotComputableError:
        found = math.nan
    if not math.isclose(found, entry.value, rel_tol=SAME):
        raise ArtefactError(
            f"the {side} run of {run.started_at} says {entry.value:.6g} tokens/s, and its requests "
            f"give {found:.6g}: the file was changed, or another version counted otherwise. "
            "Measure again."
        )
