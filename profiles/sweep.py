"""Several workloads on one target, one run folder each; the comparison page beside them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nemotrt.profiles import measure
from nemotrt.profiles.load.journal import journal_folder
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.measure import Observers
from nemotrt.profiles.report.comparison import write_comparison
from nemotrt.profiles.result import ProfileResult, Status
from nemotrt.profiles.run_folder import REPORT_FILE, check_folder, write_folder
from nemotrt.profiles.targets.target import Target

# A doubling of users that brings less than this has found the knee.
MIN_GAIN = 0.03
MAX_CONCURRENCY = 1024


def run_folders(output: Path, workloads: list[Workload]) -> list[Path]:
    """Return each run's folder: `output` itself for one run, else one a concurrency in it."""
    if len(workloads) == 1:
        return [output]
    return [output / f"c{workload.concurrency}" for workload in workloads]


def search(
    make_target: Callable[[Workload], Target],
    workload_at: Callable[[int], Workload],
    output: Path,
    *,
    max_concurrency: int = MAX_CONCURRENCY,
    force: bool = False,
    watchers: Observers | None = None,
) -> list[ProfileResult]:
    """Return runs of 1, 2, 4, ... users, until more of them bring less than MIN_GAIN.

    Raises:
        ConfigError: a folder is in the way, or the target can't take the workload.
        EnvironmentUnfitError: the target can't be reached.
    """
    results: list[ProfileResult] = []
    concurrency, best = 1, 0.0
    while concurrency <= max_concurrency:
        [result] = sweep(
            make_target,
            [workload_at(concurrency)],
            output / f"c{concurrency}",
            force=force,
            watchers=watchers,
        )
        results.append(result)
        rate = result.metrics["tokens_per_s"].value
        if result.status is not Status.COMPLETE or rate is None or rate < best * (1 + MIN_GAIN):
            break
        concurrency, best = 2 * concurrency, rate
    write_comparison(results, output / REPORT_FILE)
    return results


def sweep(
    make_target: Callable[[Workload], Target],
    workloads: list[Workload],
    output: Path,
    *,
    force: bool = False,
    watchers: Observers | None = None,
) -> list[ProfileResult]:
    """Return the results of all runs; the first that is not complete is the last.

    Raises:
        ConfigError: a folder is in the way, or the target can't take the workload.
        EnvironmentUnfitError: the target can't be reached.
    """
    folders = run_folders(output, workloads)
    for folder in folders:
        check_folder(folder, force=force)
    results = []
    for workload, folder in zip(workloads, folders, strict=True):
        observers = replace(watchers or Observers(), journal=journal_folder(folder))
        result = measure.run(make_target(workload), workload, observers)
        write_folder(result, folder, force=force)
        results.append(result)
        if result.status is not Status.COMPLETE:
            break
    if len(workloads) > 1:
        write_comparison(results, output / REPORT_FILE)
    return results
