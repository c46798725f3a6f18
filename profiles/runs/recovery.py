"""The result of a run that was killed, from its journal."""

from pathlib import Path

from nemotrt.profiles.runs.imports.composition import result_of
from nemotrt.profiles.runs.metrics.evaluation import steady_window
from nemotrt.profiles.runs.record.journal import read_journal
from nemotrt.profiles.runs.record.result import (
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
    return result_of(
        requests,
        WorkloadRecord.model_validate(head["workload"]),
        steady_window(requests, is_cut=True),
        "nemotrt",
        status=Status.INTERRUPTED,
        reason="the run was killed; this is what had come in until then.",
        started_at=head["started_at"],
        target=head["target"],
        machine=head["machine"],
        notes=("Recovered from the journal of a killed run.",),
    )
