"""Progress on stderr: bars and stages on a terminal, nothing elsewhere; rich only for those."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn


@contextmanager
def stage_printer(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the stage now under way; it spins on a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield lambda stage: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as status:
        yield lambda stage: status.update(stage)


@contextmanager
def byte_progress(what: str, total_bytes: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes bytes done; a bar shows GB, GB/s and the time left."""
    if quiet or not sys.stderr.isatty():
        yield lambda num_bytes: None
        return
    from rich.progress import DownloadColumn, TransferSpeedColumn

    with _bar(what, total_bytes, DownloadColumn(), TransferSpeedColumn()) as advance:
        yield advance


@contextmanager
def count_progress(what: str, total: int | None, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes a number of things done; a total that nobody knows is None."""
    if quiet or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.progress import MofNCompleteColumn

    with _bar(what, total, MofNCompleteColumn()) as advance:
        yield advance


@contextmanager
def _bar(
    what: str, total: int | None, *columns: "ProgressColumn"
) -> Iterator[Callable[[int], None]]:
    """Yield a function that moves the bar."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    every = (TextColumn("{task.description}"), BarColumn(), *columns, TimeRemainingColumn())
    with Progress(*every, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def readable_size(num_bytes: int) -> str:
    """Return a size in GB, or MB below one."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.2f} MB"
