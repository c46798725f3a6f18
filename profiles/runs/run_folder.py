"""A run's folder: result.json and report.html, whole or not at all."""

import shutil
from pathlib import Path
from typing import Any

from nemotrt.errors import ConfigError
from nemotrt.files.text_file import read_json
from nemotrt.files.writing import check_target, writing_folder
from nemotrt.profiles.reports.page import write_html
from nemotrt.profiles.runs.imports.aiperf import RECORDS_FILE, read_aiperf
from nemotrt.profiles.runs.imports.composition import result_of
from nemotrt.profiles.runs.imports.vllm_bench import read_vllm_bench
from nemotrt.profiles.runs.metrics.evaluation import steady_window
from nemotrt.profiles.runs.record.journal import HEAD_FILE, read_journal
from nemotrt.profiles.runs.record.result import (
    ProfileResult,
    RequestRecord,
    Status,
    WorkloadRecord,
    read_result,
    write_result,
)

RESULT_FILE = "result.json"
REPORT_FILE = "report.html"


def check_folder(folder: Path, *, force: bool) -> None:
    """Raise ConfigError if `folder` is in the way, or is none of ours."""
    check_target(folder, force=force)
    if folder.exists() and not (folder / RESULT_FILE).is_file():
        raise ConfigError(f"{folder} is no profile run; --force replaces those only.")


def clear_runs(output: Path, *, force: bool) -> None:
    """Make room for a sweep in `output`: a run of an older one must not be taken for one of it.

    Raises:
        ConfigError: there are runs, and `force` is false.
    """
    old = _run_folders(output)
    if old and not force:
        names = ", ".join(folder.name for folder in old)
        raise ConfigError(
            f"{output} holds runs ({names}); give another folder, or --force to replace them."
        )
    for folder in old:
        shutil.rmtree(folder)


def _run_folders(path: Path) -> list[Path]:
    """Return the folder itself if it is a run's, else the runs of a sweep in it, by users."""
    if (path / RESULT_FILE).is_file():
        return [path]
    found = [folder for folder in path.glob("c*") if (folder / RESULT_FILE).is_file()]
    return sorted(found, key=lambda folder: (len(folder.name), folder.name))


def read_run(path: Path) -> ProfileResult:
    """Return a run: our folder, result file or journal of a killed run, or another tool's.

    Raises:
        ArtefactError: there is none.
    """
    if (path / HEAD_FILE).is_file():
        return recover(path)
    if path.suffix == ".jsonl" or (path / RECORDS_FILE).is_file():
        return read_aiperf(path)
    if path.suffix == ".json" and (raw := _vllm_result(path)) is not None:
        return read_vllm_bench(raw, path)
    return read_result(path)


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


def _vllm_result(path: Path) -> dict[str, Any] | None:
    """Return the JSON object if it is a result of vLLM's benchmark."""
    if not path.is_file():
        return None  # read_result says what is missing
    raw = read_json(path)
    return raw if isinstance(raw, dict) and "output_throughput" in raw else None


def read_runs(path: Path) -> list[ProfileResult]:
    """Return the run in a folder, or the runs of a sweep; raises ArtefactError."""
    return [read_result(folder) for folder in _run_folders(path)] or [read_run(path)]


def write_folder(result: ProfileResult, folder: Path, *, force: bool) -> None:
    """Write the run's folder."""
    with writing_folder(folder, force=force) as partial:
        write_result(result, partial / RESULT_FILE)
        write_html(result, partial / REPORT_FILE)
