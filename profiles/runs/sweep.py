"""Several workloads on one target, one run folder each; the comparison page beside them."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.busy import MachineUse, undisturbed
from nemotrt.profiles.hardware.on_busy import OnBusy
from nemotrt.profiles.load.choice.best_concurrency import MAX_CONCURRENCY, next_concurrency
from nemotrt.profiles.load.driver import Drive, drive
from nemotrt.profiles.load.target import Target
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.reports.comparison import write_comparison
from nemotrt.profiles.runs import measure
from nemotrt.profiles.runs.measure import Observers
from nemotrt.profiles.runs.metrics.student import confident_reach
from nemotrt.profiles.runs.options import MIN_REPEATS
from nemotrt.profiles.runs.record.journal import check_journal, discard_journal, journal_folder
from nemotrt.profiles.runs.record.result import (
    ProfileResult,
    Status,
    WorkloadRecord,
    read_result,
)
from nemotrt.profiles.runs.run_folder import (
    REPORT_FILE,
    RESULT_FILE,
    check_folder,
    clear_runs,
    write_folder,
)

QUIET = MachineUse(
    num_cores=1, others_cores=None, stolen_share=None, wait_share=None, is_engine_here=False
)
# What a run may have otherwise and still be the one that a resumed sweep asks for.
OWN = ("seed", "max_errors", "max_retries")


@dataclass(frozen=True, slots=True)
class Sweep:
    """What the runs of a sweep share.

    Attributes:
        make_target: opens the target for a workload.
        output: the folder of the runs.
        force: replace the runs that are there.
        resume: keep those that are complete, and go on.
        within: the repeats of a load end when the 95 % interval of their mean is this share of it
            to either side; 0 does all.
        watchers: of each run.
        drive: who sends the load.
        on_busy: what becomes of a run that other work on this machine disturbed.
    """

    make_target: Callable[[Workload], Target]
    output: Path
    force: bool = False
    resume: bool = False
    within: float = 0.0
    watchers: Observers | None = None
    drive: Drive = drive
    on_busy: OnBusy = OnBusy.TELL

    def search(
        self,
        workloads_at: Callable[[int], list[Workload]],
        max_concurrency: int = MAX_CONCURRENCY,
    ) -> list[ProfileResult]:
        """Return runs of the concurrencies that lead to the best, in order of measurement.

        `workloads_at` gives a concurrency's workloads; all but the first repeat the best in the
        end. A concurrency at which a run fails is taken for one that brings nothing.

        Raises:
            ConfigError: runs are in the way, or the target can't take the workload.
            EnvironmentUnfitError: the target can't be reached; what was measured is kept.
        """
        self._clear()
        rates: dict[int, float] = {}
        with self._comparison() as results:
            while (concurrency := next_concurrency(rates, max_concurrency)) is not None:
                result = self._measured(workloads_at(concurrency)[0], results)
                rate = result.metrics["tokens_per_s"].value
                is_whole = result.status is Status.COMPLETE and rate is not None
                rates[concurrency] = rate if is_whole and rate else 0.0
                if result.status is Status.INTERRUPTED or not any(rates.values()):
                    return results
            best = max(rates, key=lambda users: rates[users])
            first = [run for run in results if run.workload.concurrency == best]
            self._repeat(workloads_at(best)[1:], first, results)
        return results

    def run(self, workloads: list[Workload]) -> list[ProfileResult]:
        """Return the results of all runs; one that fails ends nothing, an interrupt does.

        One workload's run is `output` itself; several have a folder each in it.

        Raises:
            ConfigError: a run is in the way, or the target can't take the workload.
            EnvironmentUnfitError: the target can't be reached; what was measured is kept.
        """
        if len(workloads) == 1:
            self._check(self.output)
            return [self._measured_in(self.output, workloads[0], [])]
        self._clear()
        groups: dict[int, list[Workload]] = {}
        for workload in workloads:
            groups.setdefault(workload.concurrency, []).append(workload)
        for group in groups.values():  # an hour later is too late to find a folder in the way
            for repeat, workload in enumerate(group, start=1):
                self._check(sweep_folder(self.output, workload, repeat))
        with self._comparison() as results:
            for group in groups.values():
                self._repeat(group, [], results)
                if results[-1].status is Status.INTERRUPTED:
                    break
        return results

    def _repeat(
        self, workloads: list[Workload], earlier: list[ProfileResult], results: list[ProfileResult]
    ) -> None:
        """Measure one load again and again, until that settles its rate, or all are done."""
        runs = list(earlier)
        for workload in workloads:
            if self.within and is_settled(runs, self.within):
                return
            runs.append(self._measured(workload, results, repeat=len(runs) + 1))
            if runs[-1].status is Status.INTERRUPTED:
                return

    @contextmanager
    def _comparison(self) -> Iterator[list[ProfileResult]]:
        """Yield the list of the results; what is in it at the end, however it comes, has a page."""
        results: list[ProfileResult] = []
        try:
            yield results
        finally:
            if results:
                write_comparison(results, self.output / REPORT_FILE)

    def _measured(
        self, workload: Workload, results: list[ProfileResult], repeat: int = 1
    ) -> ProfileResult:
        """Return one of several runs, and add it to the results."""
        folder = sweep_folder(self.output, workload, repeat)
        self._check(folder)
        results.append(self._measured_in(folder, workload, results))
        return results[-1]

    def _measured_in(
        self, folder: Path, workload: Workload, earlier: list[ProfileResult]
    ) -> ProfileResult:
        """Return a run that is written to `folder`; until then its journal is beside it."""
        if self.resume and (found := _finished(folder, workload)) is not None:
            return found
        journal = journal_folder(folder)
        observers = replace(self.watchers or Observers(), journal=journal)

        def attempt() -> ProfileResult:
            target = self.make_target(workload)
            if self.resume and earlier:
                _check_target(target.facts, earlier[-1].target)
            return measure.run(target, workload, observers, self.drive)

        result = undisturbed(self.on_busy, attempt, use_of)
        if (
            self.on_busy is OnBusy.REFUSE
            and result.status is Status.COMPLETE
            and use_of(result).text
        ):
            changes = {"status": Status.FAILED, "reason": use_of(result).text}
            result = result.model_copy(update=changes)
        write_folder(result, folder, force=True)  # `_check` has looked
        discard_journal(journal)
        return result

    def _clear(self) -> None:
        """Make room for the runs, unless they are to be kept."""
        if not self.resume:
            clear_runs(self.output, force=self.force)

    def _check(self, folder: Path) -> None:
        """Raise ConfigError if something is where a run is to be written."""
        check_folder(folder, force=self.force or self.resume)
        check_journal(journal_folder(folder), force=self.force or self.resume)


def sweep_folder(output: Path, workload: Workload, repeat: int = 1) -> Path:
    """Return the folder of one of several runs; `repeat` counts those of the same concurrency."""
    name = f"c{workload.concurrency}"
    return output / (name if repeat == 1 else f"{name}-{repeat}")


def is_settled(runs: list[ProfileResult], within: float) -> bool:
    """Return whether the mean of the runs' tokens a second is known to `within` of it."""
    values = [run.metrics["tokens_per_s"].value for run in runs if run.status is Status.COMPLETE]
    logs = [math.log(value) for value in values if value]
    if len(logs) < MIN_REPEATS:
        return False
    reach = confident_reach(len(logs) - 1)
    return bool(reach * np.std(logs, ddof=1) / math.sqrt(len(logs)) <= math.log1p(within))


def use_of(result: ProfileResult) -> MachineUse:
    """Return what the machine did in a run; of one that was cut short, or unwatched, nothing."""
    if result.machine_use is None or result.status is not Status.COMPLETE:
        return QUIET
    return result.machine_use


def _finished(folder: Path, workload: Workload) -> ProfileResult | None:
    """Return the complete run in a folder, None if it is still to be done.

    Raises:
        ConfigError: it is of another load.
    """
    if not (folder / RESULT_FILE).is_file():
        return None
    result = read_result(folder)
    if result.status is not Status.COMPLETE:
        return None
    wanted = WorkloadRecord.of(workload).model_dump()
    there = result.workload.model_dump()
    for name in wanted.keys() - set(OWN):
        if wanted[name] != there[name]:
            raise ConfigError(
                f"--resume: {folder} is of another load: its {name} is {there[name]}, not "
                f"{wanted[name]}. Give the options of then, or another output."
            )
    return result


def _check_target(now: Mapping[str, str | int], then: Mapping[str, str | int]) -> None:
    """Raise ConfigError if a resumed sweep is of another target than its runs."""
    for name in now.keys() & then.keys():
        if now[name] != then[name]:
            raise ConfigError(
                f"--resume: the runs there are of another target: its {name} is {then[name]}, not "
                f"{now[name]}. Give another output."
            )
