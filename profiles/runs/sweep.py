"""Several workloads on one target, one run folder each; the comparison page beside them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nemotrt.profiles.load.choice.best_concurrency import MAX_CONCURRENCY, next_concurrency
from nemotrt.profiles.load.driver import Drive, drive
from nemotrt.profiles.load.target import Target
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.reports.comparison import write_comparison
from nemotrt.profiles.runs import measure
from nemotrt.profiles.runs.measure import Observers
from nemotrt.profiles.runs.record.journal import check_journal, discard_journal, journal_folder
from nemotrt.profiles.runs.record.result import ProfileResult, Status
from nemotrt.profiles.runs.run_folder import REPORT_FILE, check_folder, clear_runs, write_folder


def search(
    make_target: Callable[[Workload], Target],
    workloads_at: Callable[[int], list[Workload]],
    output: Path,
    *,
    max_concurrency: int = MAX_CONCURRENCY,
    force: bool = False,
    watchers: Observers | None = None,
    drive: Drive = drive,
) -> list[ProfileResult]:
    """Return runs of the concurrencies that lead to the best, in the order of their measurement.

    `workloads_at` gives a concurrency's workloads; all but the first repeat the best in the end.

    Raises:
        ConfigError: runs are in the way, or the target can't take the workload.
        EnvironmentUnfitError: the target can't be reached.
    """
    clear_runs(output, force=force)
    results: list[ProfileResult] = []
    rates: dict[int, float] = {}
    while (concurrency := next_concurrency(rates, max_concurrency)) is not None:
        workload = workloads_at(concurrency)[0]
        folder = sweep_folder(output, workload)
        _check(folder, force=force)
        result = _measure_one(make_target, workload, folder, watchers, drive)
        results.append(result)
        rate = result.metrics["tokens_per_s"].value
        if result.status is not Status.COMPLETE or rate is None:
            break
        rates[concurrency] = rate
    if all(result.status is Status.COMPLETE for result in results):
        best = max(rates, key=lambda users: rates[users])
        for repeat, workload in enumerate(workloads_at(best)[1:], start=2):
            folder = sweep_folder(output, workload, repeat)
            results.append(_measure_one(make_target, workload, folder, watchers, drive))
    write_comparison(results, output / REPORT_FILE)
    return results


def sweep(
    make_target: Callable[[Workload], Target],
    workloads: list[Workload],
    output: Path,
    *,
    force: bool = False,
    watchers: Observers | None = None,
    drive: Drive = drive,
) -> list[ProfileResult]:
    """Return the results of all runs; the first that is not complete is the last.

    One workload's run is `output` itself; several have a folder each in it.

    Raises:
        ConfigError: a run is in the way, or the target can't take the workload.
        EnvironmentUnfitError: the target can't be reached.
    """
    if len(workloads) == 1:
        _check(output, force=force)
        return [_measure_one(make_target, workloads[0], output, watchers, drive)]
    clear_runs(output, force=force)
    counts: Counter[int] = Counter()
    folders = []
    for workload in workloads:
        counts[workload.concurrency] += 1
        folders.append(sweep_folder(output, workload, counts[workload.concurrency]))
        _check(folders[-1], force=force)
    results = []
    for workload, folder in zip(workloads, folders, strict=True):
        results.append(_measure_one(make_target, workload, folder, watchers, drive))
        if results[-1].status is not Status.COMPLETE:
            break
    write_comparison(results, output / REPORT_FILE)
    return results


def _check(folder: Path, *, force: bool) -> None:
    """Raise ConfigError if something is where a run is to be written."""
    check_folder(folder, force=force)
    check_journal(journal_folder(folder), force=force)


def sweep_folder(output: Path, workload: Workload, repeat: int = 1) -> Path:
    """Return the folder of one of several runs; `repeat` counts those of the same concurrency."""
    name = f"c{workload.concurrency}"
    return output / (name if repeat == 1 else f"{name}-{repeat}")


def _measure_one(
    make_target: Callable[[Workload], Target],
    workload: Workload,
    folder: Path,
    watchers: Observers | None,
    drive: Drive,
) -> ProfileResult:
    """Return a run that is written to `folder`; until then its journal is beside it."""
    journal = journal_folder(folder)
    observers = replace(watchers or Observers(), journal=journal)
    result = measure.run(make_target(workload), workload, observers, drive)
    write_folder(result, folder, force=True)  # the caller has looked
    discard_journal(journal)
    return result
