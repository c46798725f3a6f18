"""Both models over lm-eval's tasks, one after the other, and their scores side by side."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.needs import LM_EVAL
from nemotrt.quantize.quality.tasks.opened_model import opened_model
from nemotrt.quantize.quality.tasks.paired import TaskScore, paired_scores


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """What is asked of lm-eval."""

    tasks: tuple[str, ...]
    folder: Path | None = None  # with YAML files of more tasks
    limit: int | None = None  # items of a task
    shots: int | None = None
    is_chat: bool = False  # through the model's chat template


def run_tasks(
    reference: Path,
    candidate: Path,
    options: TaskOptions,
    open_options: OpenOptions = AS_BUILT,
    progress: Callable[[int], None] = lambda num_requests: None,
) -> list[TaskScore]:
    """Return the scores of both models.

    Raises:
        ConfigError: a task is unknown or samples, or --chat is given and there is no template.
        EnvironmentUnfitError: lm-eval or a task's data set is missing; or no engine runs here.
    """
    LM_EVAL.load("lm_eval", "--tasks")
    found = []
    for folder, how in ((reference, AS_BUILT), (candidate, open_options)):
        found.append(_evaluated(folder, options, how, progress))
    return paired_scores(*found)


def _evaluated(
    folder: Path, options: TaskOptions, how: OpenOptions, progress: Callable[[int], None]
) -> Any:
    """Return what lm-eval finds of one model."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from nemotrt.quantize.quality.tasks.engine_model import EngineModel

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(include_path=options.folder and str(options.folder))
    _check_names(options.tasks, manager.all_tasks)
    with opened_model(folder, how) as opened:
        if options.is_chat and opened.template is None:
            raise ConfigError(f"{folder} has no chat template; leave --chat away.")
        try:
            return simple_evaluate(
                EngineModel(opened, progress),
                tasks=list(options.tasks),
                num_fewshot=options.shots,
                limit=options.limit,
                bootstrap_iters=0,
                log_samples=True,
                apply_chat_template=options.is_chat,
                task_manager=manager,
            )
        except (OSError, ValueError) as error:  # of datasets: it has no common base
            if not _is_of_datasets(error):
                raise
            raise EnvironmentUnfitError(
                f"the data of {', '.join(options.tasks)} can't be loaded: {error}. Load it once "
                "where the hub can be reached and copy its cache ($HF_HOME, default "
                f"{os.path.expanduser('~/.cache/huggingface')}); or give a task with a file of its "
                "own: --task-folder."
            ) from error


def _check_names(names: Sequence[str], known: Sequence[str]) -> None:
    """Raise ConfigError unless lm-eval knows each task."""
    import difflib

    for name in names:
        if name not in known:
            near = ", ".join(difflib.get_close_matches(name, known, 5)) or "none like it"
            raise ConfigError(
                f"unknown task {name!r}; near: {near}. `lm_eval ls tasks` lists all; "
                "--task-folder adds yours."
            )


def _is_of_datasets(error: BaseException) -> bool:
    """Whether an error comes out of the datasets or hub library."""
    trace = error.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.split(".")[0] in ("datasets", "huggingface_hub"):
            return True
        trace = trace.tb_next
    return False
