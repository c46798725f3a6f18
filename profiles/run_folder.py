"""A run's folder: result.json and report.html, whole or not at all."""

from pathlib import Path

from nemotrt.engines.artefact import check_target, writing_folder
from nemotrt.errors import ConfigError
from nemotrt.profiles.load.journal import HEAD_FILE
from nemotrt.profiles.recovery import recover
from nemotrt.profiles.report.page import write_html
from nemotrt.profiles.result import ProfileResult, read_result, write_result

RESULT_FILE = "result.json"
REPORT_FILE = "report.html"


def check_folder(folder: Path, *, force: bool) -> None:
    """Raise ConfigError if `folder` is in the way, or is none of ours."""
    check_target(folder, force=force)
    if folder.exists() and not (folder / RESULT_FILE).is_file():
        raise ConfigError(f"{folder} is no profile run; --force replaces those only.")


def read_run(path: Path) -> ProfileResult:
    """Return the result in a run's folder, a result file, or the journal of a killed run.

    Raises:
        ArtefactError: there is none.
    """
    if (path / HEAD_FILE).is_file():
        return recover(path)
    return read_result(path)


def read_runs(path: Path) -> list[ProfileResult]:
    """Return the run in a folder, or the runs of a sweep; raises ArtefactError."""
    if path.is_dir() and not (path / RESULT_FILE).is_file():
        runs = [read_result(file.parent) for file in sorted(path.glob(f"c*/{RESULT_FILE}"))]
        if runs:
            return runs
    return [read_run(path)]


def write_folder(result: ProfileResult, folder: Path, *, force: bool) -> None:
    """Write the run's folder."""
    with writing_folder(folder, force=force) as partial:
        write_result(result, partial / RESULT_FILE)
        write_html(result, partial / REPORT_FILE)
