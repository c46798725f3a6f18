"""The end of a check whose kernels never end: a call that waits for them can't be interrupted."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from nemotrt.build.check.result.fault import Fault, Outcome, Stage
from nemotrt.build.check.result.report import GpuSeen, new_report, to_send
from nemotrt.build.check.result.rows import KernelCheck

MAX_S = 180.0
Report = Callable[[str], None]


@contextmanager
def in_time(found: KernelCheck, report: Report, limit_s: float = MAX_S) -> Iterator[Report]:
    """Yield what is to be told of each piece of work; after the limit the process ends with 1.

    What was found until then is in the report file. NVML isn't asked: it may wait too.
    """
    doing = "starting"

    def tell(text: str) -> None:
        nonlocal doing
        doing = text
        report(text)

    def expire() -> None:
        what = f"{doing}: no end after {limit_s:g} s."
        found.faults.append(Fault(Stage.LAUNCH, what, Outcome.WRONG))
        report = new_report(GpuSeen(None, None, None, "not asked: the GPU does not end"), found)
        click.echo(f"{report.faults[-1]}\n{to_send(report)}", err=True)
        os._exit(report.exit_code)

    timer = threading.Timer(limit_s, expire)
    timer.daemon = True
    timer.start()
    try:
        yield tell
    finally:
        timer.cancel()
