"""Whether other work kept this machine busy while something was measured."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.files.model_file import Strict
from nemotrt.profiles.hardware.on_busy import OnBusy

T = TypeVar("T")
# Of the cores, of their time, and of what our own threads ran. Chosen: a quiet machine shows a
# tenth of each, and less costs a figure no more than the noise between two runs.
MAX_OTHERS_SHARE, MAX_STOLEN_SHARE, MAX_WAIT_SHARE = 0.10, 0.02, 0.10
LOOK_S = 1.0
MAX_REPEATS = 2
NS_PER_S = 1e9


class MachineUse(Strict):
    """What the machine did besides; None: this system does not tell.

    Attributes:
        num_cores: that this process may use.
        others_cores: of these, what other processes used.
        stolen_share: of the cores' time, what a host gave to other guests.
        wait_share: how long our own threads waited for a core, to how long they ran.
        is_engine_here: the engine ran in this process: else it may be one of the others.
    """

    num_cores: int
    others_cores: float | None
    stolen_share: float | None
    wait_share: float | None
    is_engine_here: bool

    @property
    def excess(self) -> float:
        """How far the worst figure is above what a quiet machine shows; above 1 it is busy."""
        others = self.others_cores if self.is_engine_here else None
        return max(
            (others or 0.0) / self.num_cores / MAX_OTHERS_SHARE,
            (self.stolen_share or 0.0) / MAX_STOLEN_SHARE,
            (self.wait_share or 0.0) / MAX_WAIT_SHARE,
        )

    @property
    def is_known(self) -> bool:
        """Whether the system told anything that a busy machine would show."""
        others = self.others_cores if self.is_engine_here else None
        return any(told is not None for told in (others, self.stolen_share, self.wait_share))

    @property
    def text(self) -> str:
        """What disturbed, or that nobody knows; "" on a quiet machine."""
        if not self.is_known:
            return "Whether this machine was busy is not known: the system does not tell."
        if self.excess <= 1:
            return ""
        said = []
        if self.others_cores is not None:
            whose = "other programs" if self.is_engine_here else "other programs, or the server,"
            said.append(f"{whose} used {self.others_cores:.1f} of {self.num_cores} cores")
        if self.wait_share is not None:
            said.append(f"own threads waited for a core {self.wait_share:.0%} as long as they ran")
        if self.stolen_share:
            said.append(f"the host took {self.stolen_share:.0%} of the time")
        return f"This machine was busy: {'; '.join(said)}. On a quiet one times are shorter."


@dataclass(frozen=True, slots=True)
class _Clocks:
    """Seconds of CPU time since some origin; None where they are not told."""

    at_s: float
    busy_s: float | None
    stolen_s: float | None
    own_s: float
    waited_s: float | None


class BusyWatch:
    """Compares the machine's clocks of now with those of its making."""

    def __init__(self, *, is_engine_here: bool) -> None:
        """Start to watch."""
        self._is_engine_here = is_engine_here
        self._start = _clocks()

    def use(self) -> MachineUse:
        """Return what the machine did since."""
        start, now = self._start, _clocks()
        num_cores, length_s = len(os.sched_getaffinity(0)), max(now.at_s - start.at_s, 1e-9)
        own_s = now.own_s - start.own_s
        others = stolen = waited = None
        if now.busy_s is not None and start.busy_s is not None:
            others = max(now.busy_s - start.busy_s - own_s, 0.0) / length_s
        if now.stolen_s is not None and start.stolen_s is not None:
            stolen = (now.stolen_s - start.stolen_s) / length_s / num_cores
        if now.waited_s is not None and start.waited_s is not None:
            # a thread that has ended takes its wait with it; little that ran says little
            waited = max(now.waited_s - start.waited_s, 0.0) / max(own_s, 0.05 * length_s)
        return MachineUse(
            num_cores=num_cores,
            others_cores=others,
            stolen_share=stolen,
            wait_share=waited,
            is_engine_here=self._is_engine_here,
        )


def undisturbed(policy: OnBusy, attempt: Callable[[], T], use_of: Callable[[T], MachineUse]) -> T:
    """Return what `attempt` measured, again where the policy says so; the quietest counts.

    Raises:
        EnvironmentUnfitError: the policy refuses, and the machine is busy before.
    """
    if policy is OnBusy.REFUSE:
        watch = BusyWatch(is_engine_here=True)
        time.sleep(LOOK_S)
        check_quiet(policy, watch.use())
    found = attempt()
    for _ in range(MAX_REPEATS if policy is OnBusy.REPEAT else 0):
        if use_of(found).excess <= 1:
            break
        found = min((found, attempt()), key=lambda one: use_of(one).excess)
    return found


def check_quiet(policy: OnBusy, use: MachineUse) -> None:
    """Raise EnvironmentUnfitError if the policy refuses what was measured on a busy machine."""
    if policy is OnBusy.REFUSE and use.text:
        raise EnvironmentUnfitError(
            f"{use.text} Give the machine to the measurement, or leave out --on-busy refuse."
        )


def _clocks() -> _Clocks:
    """Return the clocks of the cores that this process may use, and its own."""
    busy_s, stolen_s = _core_times()
    return _Clocks(time.perf_counter(), busy_s, stolen_s, time.process_time(), _waited_s())


def _core_times() -> tuple[float | None, float | None]:
    """Return how long the cores were at work for this machine, and for others of its host.

    Source: proc(5), /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
    """
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        rows = [line.split()[1:9] for line in lines if line.split(" ", 1)[0] in ours]
        ticks = [sum(int(row[column]) for row in rows) for column in range(8)]
    except (OSError, ValueError, IndexError):
        return None, None
    per_s = os.sysconf("SC_CLK_TCK")
    return sum(ticks[column] for column in (0, 1, 2, 5, 6)) / per_s, ticks[7] / per_s


def _waited_s() -> float | None:
    """Return how long this process's threads have waited for a core while they could have run.

    Source: Linux, Documentation/scheduler/sched-stats.rst, /proc/<pid>/schedstat, second field.
    """
    waited_ns = 0
    try:
        for task in Path("/proc/self/task").iterdir():
            try:
                waited_ns += int((task / "schedstat").read_text().split()[1])
            except FileNotFoundError:
                continue  # it has just ended
    except (OSError, ValueError, IndexError):
        return None
    return waited_ns / NS_PER_S
