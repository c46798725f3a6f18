"""Progress on stderr: bars and stages on a terminal, nothing elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
