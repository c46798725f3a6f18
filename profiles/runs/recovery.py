"""The result of a run that was killed, from its journal."""

from pathlib import Path

from nemotrt.profiles.load.journal import read_journal
from nemotrt.profiles.runs.metrics.evaluation import evaluate, steady_window
from nemotrt.profiles.runs.metrics.run_view import RunView
from nemotrt.profiles.runs.record.result import (
    DriverRecord,
    ProfileResult,
    RequestRecord,
    Status,
    WorkloadRecord,
)


def recover(folder: Path) -> ProfileResult:
    """Return what a killed run had measured, marked as interrupted.

    Raises:
        ArtefactError: the folder is no journal, or is damaged.
    """
    head, lines = read_journal(folder)
    requests = tuple(RequestRecord.model_validate(line) for line in lines)
    workload = WorkloadRecord.model_validate(head["workload"])
    window = steady_window(requests, is_cut=True)
    view = RunView(requests, (), *(window or (0.0, 0.0)), None, workload.slos)
    last_s = [request.arrivals_s[-1] for request in requests if request.arrivals_s]
    return ProfileResult(
        status=Status.INTERRUPTED,
        reason="the run was killed; this is what had come in until then.",
        started_at=head["started_at"],
        clock_start_s=None,
        duration_s=max(last_s, default=0.0),
        target=head["target"],
        workload=workload,
        window_s=window,
        metrics=evaluate(view),
        driver=DriverRecord(cpu_share=None, loop_lag_p99_ms=None, is_limit=False),
        machine=head["machine"],
        notes=("Recovered from the journal of a killed run.",),
        requests=requests,
        steps=(),
    )
