"""An engine directory in this process: the bare engine and scheduler, no server between."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions
from nemotrt.engines.checkpoint.hub.origin import NOT_RECORDED
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.request import FinishReason, Request, Update
from nemotrt.engines.runtime.request_scheduler import RequestScheduler
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.text.chat.render import render_chat
from nemotrt.errors import ConfigError, NemotrtError
from nemotrt.profiles.load.exchange import Ending, Exchange, StepSample
from nemotrt.profiles.load.prompts import Chat, Prompt, PromptMaker, random_prompt
from nemotrt.profiles.load.target import Target, TargetError
from nemotrt.profiles.load.workload import Language

Done = asyncio.Future[None]


class InProcessTarget(Target):
    """Runs a Scheduler in a thread of its own; arrivals are stamped there, after each step."""

    stamps_itself = True

    def __init__(
        self,
        folder: Path,
        *,
        language: Language = Language.MIXED,
        seed: int = 0,
        options: OpenOptions = AS_BUILT,
        kept_bytes: int = 0,
    ) -> None:
        """Open the engine in `folder`; `kept_bytes` are for the states of prompts, 0 keeps none."""
        self.steps: list[StepSample] = []
        self._folder = folder
        self._opened: OpenEngine = open_engine(folder, options)
        self._kept_bytes = kept_bytes
        self._seed = seed
        tokenizer = self._opened.tokenizer
        self.maker = PromptMaker(tokenizer, language, seed) if tokenizer else None
        self._inbox: queue.SimpleQueue[Callable[[RequestScheduler], None] | None]
        self._inbox = queue.SimpleQueue()  # for the engine thread
        self._calls: dict[str, tuple[Exchange, Done]] = {}  # not answered yet
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def facts(self) -> Mapping[str, str | int]:
        """Return the engine's facts."""
        return {
            "kind": "in-process",
            "address": str(self._folder),
            **self._opened.facts,
            "origin": str(self._opened.manifest.checkpoint.origin or NOT_RECORDED),
        }

    def prompt(self, index: int, isl: int) -> Prompt:
        """Return a prompt of `isl` ids."""
        if self.maker is None:
            return random_prompt(self._opened.engine.vocab_size, index, isl, self._seed)
        return self.maker.ids(index, isl)

    def chat_prompt(self, chat: Chat) -> Prompt:
        """Return what the engine's chat template makes of a conversation, as ids."""
        tokenizer, template = self._opened.tokenizer, self._opened.template
        if tokenizer is None or template is None:
            return super().chat_prompt(chat)
        text = render_chat(template, chat.messages, chat.tools or None)
        return Prompt(tuple(tokenizer.encode(text, add_special_tokens=False)))

    async def open(self) -> None:
        """Start the engine thread."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def send(self, prompt: Prompt, exchange: Exchange) -> None:
        """Run one request on the engine."""
        name, done = str(exchange.index), asyncio.get_running_loop().create_future()
        params = SamplingParams(max_tokens=exchange.osl, ignore_eos=True)
        request = Request(name, prompt.ids, params)
        exchange.mark_sent(time.perf_counter())
        self._inbox.put(lambda scheduler: self._submit(scheduler, request, exchange, done))
        try:
            await done
        except asyncio.CancelledError:
            self._inbox.put(lambda scheduler: scheduler.cancel(name))
            raise

    async def close(self) -> None:
        """Stop the thread and free the engine."""
        if self._thread.is_alive():
            self._inbox.put(None)
            await asyncio.to_thread(self._thread.join)
        self._opened.engine.close()

    def _run(self) -> None:
        """Serve calls until None comes (the engine thread)."""
        try:
            self._serve(self._opened.scheduler(kept_bytes=self._kept_bytes))
        except NemotrtError as error:  # no request is answered from now on: it ends the run
            self._fail(NemotrtError(f"the engine failed: {error.message}"))
        except Exception as error:  # a bug: the senders raise it, with its traceback
            self._fail(error)

    def _serve(self, scheduler: RequestScheduler) -> None:
        """Step while there are calls."""
        while self._take(scheduler):
            start_s = time.perf_counter()
            waiting = {request.request_id for request in scheduler.waiting}
            updates = scheduler.step()
            end_s = time.perf_counter()
            num_ended = sum(update.finish_reason is not None for update in updates)
            num_running = len(scheduler.running) + num_ended
            self.steps.append(StepSample(start_s, end_s, num_running, len(scheduler.waiting)))
            for name in waiting - {request.request_id for request in scheduler.waiting}:
                self._calls[name][0].admitted_s = start_s
            for update in updates:
                self._note(update, end_s)

    def _fail(self, error: Exception) -> None:
        """End every call with `error`."""
        for _, done in self._calls.values():
            self._finish(done, error)

    def _take(self, scheduler: RequestScheduler) -> bool:
        """Take what came, waiting for it if there is nothing to do; False at the end."""
        while True:
            try:
                act = self._inbox.get(block=scheduler.is_idle)
            except queue.Empty:
                return True
            if act is None:
                return False
            act(scheduler)

    def _submit(
        self, scheduler: RequestScheduler, request: Request, exchange: Exchange, done: Done
    ) -> None:
        """Hand a request to the scheduler (the engine thread)."""
        try:
            scheduler.submit(request)
        except ConfigError as error:
            self._finish(done, TargetError(error.message, Ending.REJECTED))
        else:
            self._calls[request.request_id] = exchange, done

    def _note(self, update: Update, arrived_s: float) -> None:
        """Put an update into its exchange."""
        exchange, done = self._calls[update.request_id]
        if update.tokens:
            exchange.add(arrived_s, len(update.tokens))
        if update.cached_tokens is not None:
            exchange.cached_tokens = update.cached_tokens
        if update.finish_reason is None:
            return
        exchange.finish_reason = str(update.finish_reason)
        del self._calls[update.request_id]
        failure = None
        if update.finish_reason is FinishReason.ERROR:
            failure = TargetError(f"the engine failed: {update.error}", Ending.SERVER_ERROR)
        self._finish(done, failure)

    def _finish(self, done: Done, error: Exception | None) -> None:
        """Wake the sender."""
        assert self._loop is not None  # open() came first

        def wake() -> None:
            if done.done():
                return
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(wake)
