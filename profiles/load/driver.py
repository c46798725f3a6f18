"""Runs a schedule of requests against a target, closed loop or open, and records what happens."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from nemotrt.errors import NemotrtError
from nemotrt.profiles.hardware.busy import BusyWatch, MachineUse
from nemotrt.profiles.load.exchange import Ending, Exchange, Phase
from nemotrt.profiles.load.prompts import Prompt
from nemotrt.profiles.load.schedule import num_measured, schedule
from nemotrt.profiles.load.sessions import Chats, Visit, visits
from nemotrt.profiles.load.stamping_loop import Beat, beat, heartbeat
from nemotrt.profiles.load.target import Target, TargetError, check_complete
from nemotrt.profiles.load.workload import Arrival, Workload

# A user whose request failed pauses: one that is refused at once would send thousands a second.
ERROR_PAUSE_S = 0.1
MAX_RETRY_AFTER_S = 60.0  # a server that asks for more is not waited for


@dataclass(slots=True)
class LoadRecord:
    """What a run of a driver left; `failure` is why it ended early, if it did.

    `beats` tell what the driver itself cost; a driver that has none is not known. `runs_down` says
    that the load thins out at the end: no cool-down requests keep it up.
    """

    driver: str = "nemotrt"
    start_s: float = 0.0
    end_s: float = 0.0
    exchanges: list[Exchange] = field(default_factory=list)
    failure: NemotrtError | None = None
    is_interrupted: bool = False
    beats: list[Beat] = field(default_factory=list)
    runs_down: bool = False
    use: MachineUse | None = None  # of the machine, where the driver watched it


Drive = Callable[[Target, Workload, list[Prompt], LoadRecord], Awaitable[None]]


async def prepare(target: Target, workload: Workload) -> list[Prompt]:
    """Return the prompts of warm-up and measurement, and one cool-down prompt a user.

    Those of conversations that cool down are made when they start.

    Raises:
        ConfigError: the target's tokenizer can't make them, or it takes no conversations.
    """
    prompts: list[Prompt] = []
    chats = Chats(target, workload)
    for number, visit in enumerate(visits(workload)):
        if visit[0][1].phase is Phase.COOL_DOWN:
            break
        prompts += chats.prompts(number)
        await asyncio.sleep(0)  # an interrupt or a progress bar has its turn
    if workload.sessions is not None:
        return prompts
    count = workload.num_warmup + workload.num_requests + workload.concurrency
    lengths = [entry.isl for entry in workload.trace] or [workload.isl] * count
    for index, isl in enumerate(lengths):
        prompts.append(target.prompt(index, isl))
        await asyncio.sleep(0)  # an interrupt or a progress bar has its turn
    return prompts


async def drive(
    target: Target, workload: Workload, prompts: list[Prompt], record: LoadRecord
) -> None:
    """Run the load with its prepared prompts; all goes to `record`, also when it fails.

    Raises:
        asyncio.CancelledError: the caller was interrupted; `record` is marked so.
    """
    gc.collect()
    gc.freeze()  # a full collection would walk the prompts while tokens are waiting
    machine = BusyWatch(is_engine_here=target.stamps_itself)
    record.start_s = time.perf_counter()
    record.beats.append(beat(record.start_s))
    heart = asyncio.create_task(heartbeat(record.beats))
    run = _Run(target, workload, prompts, record)
    try:
        await (run.closed_loop() if workload.arrival is Arrival.CLOSED else run.open_loop())
    except NemotrtError as error:
        record.failure = error
    except asyncio.CancelledError:
        record.is_interrupted = True
        raise
    finally:
        record.end_s = time.perf_counter()
        record.beats.append(beat(record.end_s))
        record.use = machine.use()
        heart.cancel()
        gc.unfreeze()


class _Run:
    """The tasks of one run; it is over when the last measured request has ended."""

    def __init__(
        self, target: Target, workload: Workload, prompts: list[Prompt], record: LoadRecord
    ) -> None:
        self._target, self._workload = target, workload
        self._prompts, self._record = prompts, record
        self._requests, self._visits = schedule(workload), visits(workload)
        self._chats = Chats(target, workload)
        self._num_left = num_measured(workload)
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._num_failed, self._first_error = 0, ""

    async def closed_loop(self) -> None:
        """Let `concurrency` users send, each its next request when its answer is complete.

        Agents have conversations, one after another.
        """

        async def user() -> None:
            if self._workload.sessions is not None:
                for visit in self._visits:
                    await self._converse(visit)
                return
            for _, exchange in self._requests:
                await self._perform(exchange, await self._prompt(exchange))

        for _ in range(self._workload.concurrency):
            self._start(user())
        await self._wait()

    async def open_loop(self) -> None:
        """Send each request when it is due, whatever has become of those before it."""

        async def send(exchange: Exchange) -> None:
            await self._perform(exchange, await self._prompt(exchange))

        async def pace() -> None:
            for due_s, exchange in self._requests:
                exchange.due_s = self._record.start_s + due_s
                await _until(exchange.due_s)
                self._start(send(exchange))

        if self._workload.sessions is not None:  # each waits for its own time
            for visit in self._visits:
                self._start(self._converse(visit))
        else:
            self._start(pace())
        await self._wait()

    async def _converse(self, visit: Visit) -> None:
        """Have one conversation: each turn after the answer and the pause before it.

        A turn is due then; without a pause or a time of its own, when it is sent.
        """
        first = visit[0][1]
        assert first.place is not None  # a visit's
        prompts = self._prompts[first.index : first.index + len(visit)]
        prompts = prompts or await asyncio.to_thread(self._chats.prompts, first.place.conversation)
        for (turn, exchange), prompt in zip(visit, prompts, strict=True):
            earliest_s = self._record.start_s + (turn.due_s or 0.0)
            if turn.delay_s or turn.due_s is not None:
                exchange.due_s = max(time.perf_counter() + turn.delay_s, earliest_s)
                await _until(exchange.due_s)
            exchange.isl = prompt.num_tokens
            await self._perform(exchange, prompt)

    async def _perform(self, exchange: Exchange, prompt: Prompt) -> None:
        """Send one request, note how it ended, and pause if it failed.

        Raises:
            NemotrtError: more have failed than may, or no server is to blame.
        """
        self._record.exchanges.append(exchange)
        try:
            await self._answered(exchange, prompt)
        except TargetError as error:
            exchange.end(error.ending, error.message)
        except NemotrtError as error:
            exchange.end(Ending.FAILED, error.message)
            raise
        finally:
            exchange.ended_s = time.perf_counter()
        self._check_errors(exchange)
        if exchange.phase is Phase.MEASURED:
            self._num_left -= 1
            if self._num_left == 0:
                self._over.set()
        if exchange.ending.is_error:
            await asyncio.sleep(ERROR_PAUSE_S)

    async def _answered(self, exchange: Exchange, prompt: Prompt) -> None:
        """Send one request, again after a refusal that says when, until it has its answer.

        Raises:
            TargetError: it has none, or one of another length.
        """
        while True:
            try:
                await self._target.send(prompt, exchange)
            except TargetError as error:
                wait_s = error.retry_after_s
                is_last = exchange.num_retries >= self._workload.max_retries
                if is_last or wait_s is None or wait_s > MAX_RETRY_AFTER_S:
                    raise
                exchange.num_retries += 1
                await asyncio.sleep(wait_s)
                continue
            check_complete(exchange)
            exchange.end(Ending.RETRIED if exchange.num_retries else Ending.SUCCESS)
            return

    def _check_errors(self, exchange: Exchange) -> None:
        """Raise NemotrtError if more requests of warm-up and measurement have failed than may."""
        if not exchange.ending.is_error or exchange.phase is Phase.COOL_DOWN:
            return
        self._num_failed += 1
        self._first_error = self._first_error or exchange.error
        workload = self._workload
        reason = workload.max_errors.reason(
            self._num_failed, num_measured(workload), self._first_error
        )
        if reason:
            raise NemotrtError(reason)

    async def _prompt(self, exchange: Exchange) -> Prompt:
        """Return a request's own prompt; one that was not prepared is made beside the loop."""
        if exchange.index < len(self._prompts):
            return self._prompts[exchange.index]
        return await asyncio.to_thread(self._target.prompt, exchange.index, exchange.isl)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task; the first one that fails ends the run."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
            self._over.set()

    async def _wait(self) -> None:
        """Wait for the end, cancel what is left, raise the first failure."""
        try:
            await self._over.wait()
        finally:
            left = list(self._tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        if self._failure is not None:
            raise self._failure


async def _until(due_s: float) -> None:
    await asyncio.sleep(max(due_s - time.perf_counter(), 0.0))
