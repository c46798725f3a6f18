"""Several workloads on one target, one run folder each; the comparison page beside them."""

from collections.abc import Callable
from pathlib import Path

from nemotrt.profiles import measure
from nemotrt.profiles.load.journal import journal_folder
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.measure import Observers, Progress
from nemotrt.profiles.report.comparison import write_comparison
from nemotrt.profiles.result import ProfileResult, Status
from nemotrt.profiles.run_folder import REPORT_FILE, check_folder, write_folder
from nemotrt.profiles.targets.target import Target


def run_folders(output: Path, workloads: list[Workload]) -> list[Path]:
    """Return each run's folder: `output` itself for one run, else one a concurrency in it."""
    if len(workloads) == 1:
        return [output]
    return [output / f"c{workload.concurrency}" for workload in workloads]


def sweep(
    make_target: Callable[[Workload], Target],
    workloads: list[Workload],
    output: Path,
    *,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    on_result: Callable[[ProfileResult], None] = lambda result: None,
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
        observers = Observers(on_progress, journal_folder(folder))
        result = measure.run(make_target(workload), workload, observers)
        write_folder(result, folder, force=force)
        on_result(result)
        results.append(result)
        if result.status is not Status.COMPLETE:
            break
    if len(workloads) > 1:
        write_comparison(results, output / REPORT_FILE)
    return results
