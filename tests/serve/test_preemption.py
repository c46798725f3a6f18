"""The loop's part in preemption: who is handed to a scheduler that takes slots from others."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.kept_state import KeptStats
from nemotrt.engines.runtime.request import FinishReason, Request, Update
from nemotrt.serve.engine.loop import EngineLoop
from nemotrt.serve.engine.submission import Submission, make_submission
from nemotrt.serve.processes.options import QueueLimits
from nemotrt.serve.requests.inputs import read_inputs
from support.stand_in import StandInEngine

SLOTS = 3
INPUTS = read_inputs({"text_input": "x"}, 64)


@dataclass
class Runner:
    """What the loop asks of a running request."""

    request: Request
    num_left: int
    num_fed: int = 1
    output: list[int] = field(default_factory=list)


class Preempting:
    """A scheduler by the book: the best priorities run, first come first; the others wait.

    A request's prompt says how many steps it takes. Without `kept` nobody gives a slot up.
    """

    def __init__(self, kept: KeptStats | None) -> None:
        self.engine = StandInEngine(Limits(SLOTS, 64, 8), 100)
        self.kept = kept
        self.running: dict[str, Runner] = {}
        self._line: list[Runner] = []
        self._ended: list[Update] = []
        self.most_handed = 0

    @property
    def waiting(self) -> list[Request]:
        return [runner.request for runner in self._line]

    @property
    def is_idle(self) -> bool:
        return not (self.running or self._line or self._ended)

    def submit(self, request: Request) -> None:
        self._line.append(Runner(request, request.prompt[0]))
        self._line.sort(key=lambda runner: runner.request.priority)
        self.most_handed = max(self.most_handed, len(self._line) + len(self.running))

    def cancel(self, request_id: str) -> None:
        self.running.pop(request_id, None)
        self._line = [r for r in self._line if r.request.request_id != request_id]
        self._ended.append(Update(request_id, finish_reason=FinishReason.CANCELLED))

    def step(self) -> list[Update]:
        everyone = [*self.running.values(), *self._line]
        if self.kept is not None:
            everyone.sort(key=lambda runner: runner.request.priority)
        chosen = everyone[:SLOTS]
        if self.kept is not None:
            ids = {runner.request.request_id for runner in chosen}
            self.kept.preemptions += len(self.running.keys() - ids)
        self.running = {runner.request.request_id: runner for runner in chosen}
        self._line = everyone[SLOTS:]
        updates, self._ended = self._ended, []
        for name, runner in list(self.running.items()):
            runner.num_left -= 1
            if not runner.num_left:
                del self.running[name]
                updates.append(Update(name, finish_reason=FinishReason.LENGTH))
        return updates


def submission(name: str, steps: int, priority: int, ended: list[str]) -> Submission:
    request = Request(name, (steps,), priority=priority)
    inputs = replace(INPUTS, priority=priority)

    def deliver(fields: dict[str, Any]) -> None:
        if fields.get("final"):
            ended.append(name)

    return Submission(request, inputs, "", 0.0, None, None, deliver)


def turn(loop: EngineLoop) -> None:
    """One round of the loop's thread, in this one."""
    loop._take_inbox(wait=False)
    loop._admit()
    loop._step()


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_better_request_runs_at_the_next_step_where_states_are_kept(is_kept) -> None:
    scheduler = Preempting(KeptStats(1) if is_kept else None)
    loop, ended = EngineLoop(scheduler, QueueLimits()), []
    for number in range(SLOTS + 1):
        loop.submit(submission(f"w{number}", 9, 5, ended))
    turn(loop)
    for number in range(SLOTS + 1):
        loop.submit(submission(f"b{number}", 2, number - 9, ended))
    turn(loop)
    better = {name for name in scheduler.running if name.startswith("b")}
    assert better == ({"b0", "b1", "b2"} if is_kept else set())
    assert loop.status()["num_waiting"] == SLOTS + 2
    while loop._live:
        turn(loop)
    order = ["b0", "b1", "b2", "b3"]
    assert [name for name in ended if name.startswith("b")] == order
    assert (ended[:3] == order[:3]) == is_kept
    assert len(ended) == 2 * SLOTS + 2


def test_an_equal_request_waits() -> None:
    scheduler = Preempting(KeptStats(1))
    loop, ended = EngineLoop(scheduler, QueueLimits()), []
    for number in range(SLOTS + 4):
        loop.submit(submission(str(number), 3, 0, ended))
    turn(loop)
    assert (len(scheduler.running), len(scheduler.waiting), len(loop.waiting)) == (SLOTS, 0, 4)
    while loop._live:
        turn(loop)
    assert ended == [str(number) for number in range(SLOTS + 4)]
    assert scheduler.kept is not None and not scheduler.kept.preemptions


ARRIVALS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(-2, 2)), min_size=1, max_size=24
)


@settings(deadline=None)
@given(ARRIVALS, st.booleans())
def test_the_best_run_and_no_more_is_handed_over_than_they_need(arrivals, is_kept) -> None:
    """`arrivals` are requests with pauses before them, lengths and priorities."""
    scheduler = Preempting(KeptStats(1) if is_kept else None)
    loop, ended = EngineLoop(scheduler, QueueLimits()), []
    priorities = {}
    for number, (pause, steps, priority) in enumerate(arrivals):
        for _ in range(pause):
            turn(loop)
        priorities[str(number)] = priority
        loop.submit(submission(str(number), steps, priority, ended))
        loop._take_inbox(wait=False)
        loop._admit()
        handed = {request.request_id for request in scheduler.waiting} | scheduler.running.keys()
        best = sorted(loop._live, key=lambda name: priorities[name])[:SLOTS]
        if is_kept:  # whoever is among the best, as far as the scheduler can take them
            worst = max((priorities[name] for name in best), default=0)
            missing = [name for name in loop._live if name not in handed]
            assert all(priorities[name] >= worst for name in missing)
        else:
            assert len(handed) <= SLOTS
    for _ in range(200):
        turn(loop)
    assert sorted(ended, key=int) == [str(number) for number in range(len(arrivals))]
    levels = len(set(priorities.values())) if is_kept else 1
    assert scheduler.most_handed <= levels * SLOTS


def test_a_preempted_request_can_be_cancelled() -> None:
    scheduler = Preempting(KeptStats(1))
    loop, ended = EngineLoop(scheduler, QueueLimits()), []
    for number in range(SLOTS):
        loop.submit(submission(f"w{number}", 9, 5, ended))
    turn(loop)
    loop.submit(submission("b", 2, 0, ended))
    turn(loop)
    [parked] = scheduler.waiting
    loop.cancel(parked.request_id)
    turn(loop)
    assert parked.request_id in ended and not scheduler.waiting


def test_the_real_scheduler_gives_a_slot_up_and_takes_it_again(opened, solo) -> None:
    """Each answer is that of its solo run; the better request is done before any of the others."""
    loop = EngineLoop(opened.scheduler(None, 1 << 28), QueueLimits())
    slots = opened.engine.limits.max_batch_size
    ended: list[str] = []
    texts: dict[str, str] = {}

    def ask(name: str, prompt: str, num_tokens: int, priority: int) -> None:
        def deliver(fields: dict[str, Any]) -> None:
            if fields.get("final"):
                ended.append(name)
                texts[name] = fields["text_output"]

        values = {"text_input": prompt, "max_tokens": num_tokens, "priority": priority}
        values |= {"ignore_eos": True}
        loop.submit(make_submission(name, values, opened, None, deliver))

    for number in range(slots):
        ask(f"w{number}", f"The engine {number}", 40, number % 2)
    for _ in range(10):
        turn(loop)
    assert not ended
    ask("b", "A server", 4, -1)
    while loop._live:
        turn(loop)
    assert ended[0] == "b"
    kept = loop.scheduler.kept
    assert kept is not None and kept.preemptions == 1
    assert texts.pop("b") == solo("A server", max_tokens=4, ignore_eos=True)["text"]
    for name, text in texts.items():
        prompt = f"The engine {name.removeprefix('w')}"
        assert text == solo(prompt, max_tokens=40, ignore_eos=True)["text"]
    assert len(texts) == slots
