"""A live line on a terminal's stderr: requests done, tokens per second."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nemotrt.profiles.runs.measure import Progress


@contextmanager
def live_progress(*, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Yield a function that shows progress; None if quiet or not on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("making prompts", total=None)
        last = Progress(0, 0, 0, 0, 0.0)

        def show(progress: Progress) -> None:
            nonlocal last
            if progress.elapsed_s < last.elapsed_s:  # the next run of a sweep
                last = Progress(progress.concurrency, 0, 0, 0, 0.0)
            if progress.elapsed_s == last.elapsed_s:
                return
            gained = progress.num_tokens - last.num_tokens
            rate = gained / (progress.elapsed_s - last.elapsed_s)
            last = progress
            bar.update(
                task,
                description=f"{progress.concurrency} at a time: {rate:.0f} tokens/s",
                completed=progress.num_done,
                total=progress.num_requests,
            )

        yield show
