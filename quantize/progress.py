"""A progress bar of bytes, with speed and time left, on a terminal's stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


@contextmanager
def byte_progress(what: str, total_bytes: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes bytes done; nothing is drawn if quiet or not on a terminal."""
    with _bar(what, total_bytes, quiet, DownloadColumn(), TransferSpeedColumn()) as advance:
        yield advance


@contextmanager
def count_progress(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes a number of things done."""
    with _bar(what, total, quiet, MofNCompleteColumn()) as advance:
        yield advance


@contextmanager
def _bar(
    what: str, total: int, quiet: bool, *columns: ProgressColumn
) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    every = (TextColumn("{task.description}"), BarColumn(), *columns, TimeRemainingColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*every, console=console, disable=hidden, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
