"""A run's requests on disk as they end, so that a killed run leaves what it measured."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nemotrt.errors import ArtefactError

HEAD_FILE = "head.json"
REQUESTS_FILE = "requests.jsonl"


def journal_folder(output: Path) -> Path:
    """Return where the journal of a run that writes `output` is."""
    return output.with_name(output.name + ".partial")


@contextmanager
def journal(folder: Path, head: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that appends a request; the folder goes when the block ends normally.

    The lines are flushed to the system one by one: they survive a kill of this process. A block
    that fails leaves the folder only if it holds a request.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / HEAD_FILE).write_text(json.dumps(head) + "\n", encoding="utf-8")
    has_requests = is_over = False
    try:
        with (folder / REQUESTS_FILE).open("w", encoding="utf-8", buffering=1) as file:

            def append(request: Mapping[str, Any]) -> None:
                nonlocal has_requests
                has_requests = True
                file.write(json.dumps(request) + "\n")

            yield append
        is_over = True
    finally:
        if is_over or not has_requests:
            shutil.rmtree(folder)


def read_journal(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the head and the requests; a half-written last line is left out.

    Raises:
        ArtefactError: the journal is damaged.
    """
    try:
        head = json.loads((folder / HEAD_FILE).read_text(encoding="utf-8"))
        lines = (folder / REQUESTS_FILE).read_text(encoding="utf-8").split("\n")
        return head, [json.loads(line) for line in lines[:-1]]
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{folder} is no journal of a profile run: {error}.") from error
