"""Lets AIPerf send the load, and puts what it recorded into our record."""

import asyncio
import itertools
import tempfile
import time
from pathlib import Path

from nemotrt.errors import ConfigError, NemotrtError
from nemotrt.profiles.load.driver import Drive, LoadRecord
from nemotrt.profiles.load.exchange import Ending, Exchange
from nemotrt.profiles.load.prompts import Prompt
from nemotrt.profiles.load.schedule import num_measured, warm_up_and_measured
from nemotrt.profiles.load.target import OpenAiApi, Target, TargetError, check_complete
from nemotrt.profiles.load.targets.token_count import even_shares
from nemotrt.profiles.load.workload import Arrival, Workload
from nemotrt.profiles.runs.aiperf.child import find_aiperf, run_aiperf
from nemotrt.profiles.runs.aiperf.invocation import (
    arguments,
    openai_api,
    write_dataset,
    write_tokenizer,
)
from nemotrt.profiles.runs.imports.aiperf import RECORDS_FILE, AiperfRequest, read_records


def aiperf_driver(program: str = "aiperf") -> Drive:
    """Return a driver that runs AIPerf; raises EnvironmentUnfitError if it is not installed."""
    path = find_aiperf(program)

    async def drive(
        target: Target, workload: Workload, prompts: list[Prompt], record: LoadRecord
    ) -> None:
        """Run the load; all goes to `record`, also when it fails."""
        if workload.sessions is not None:
            raise ConfigError(
                "AIPerf is sent no conversations from here: leave out --driver, or give it the "
                "file itself (`--custom-dataset-type multi_turn`)."
            )
        if workload.max_retries:
            raise ConfigError("--retries is our own driver's: leave out --driver, or --retries.")
        api = openai_api(target)
        record.driver, record.runs_down = "aiperf", True
        with tempfile.TemporaryDirectory(prefix="nemotrt-aiperf-") as scratch:
            folder = Path(scratch)
            dataset, output = folder / "prompts.jsonl", folder / "artifacts"
            tokenizer = folder / "tokenizer"
            write_dataset(dataset, api, workload, prompts)
            write_tokenizer(tokenizer, api)
            command = [path, *arguments(api, workload, dataset, tokenizer, output)]
            record.start_s = time.perf_counter()
            try:
                await run_aiperf(command, folder / "aiperf.log")
            except NemotrtError as error:
                record.failure = error
            except asyncio.CancelledError:
                record.is_interrupted = True
                raise
            finally:
                record.end_s = time.perf_counter()
                _take(output / RECORDS_FILE, api, workload, record)

    return drive


def _take(file: Path, api: OpenAiApi, workload: Workload, record: LoadRecord) -> None:
    """Put the requests of AIPerf's export into `record`, on our clock, and check them."""
    if not file.is_file():
        if not record.is_interrupted:
            record.failure = record.failure or NemotrtError(f"AIPerf wrote no {file.name}.")
        return
    clock_s = time.perf_counter() - time.time()  # its records have wall-clock times
    planned = [exchange for _, exchange in warm_up_and_measured(workload)]
    for request in sorted(
        read_records(file), key=lambda found: (not found.is_warmup, found.number)
    ):
        exchange = planned[request.number + (0 if request.is_warmup else workload.num_warmup)]
        _fill(exchange, request, clock_s, is_open=workload.arrival is not Arrival.CLOSED)
        record.exchanges.append(exchange)
        try:
            _check(exchange, request, api)
            exchange.end(Ending.SUCCESS)
        except TargetError as error:
            exchange.end(error.ending, error.message)
    errors = [exchange.error for exchange in record.exchanges if exchange.error]
    if errors and (
        reason := workload.max_errors.reason(len(errors), num_measured(workload), errors[0])
    ):
        record.failure = record.failure or NemotrtError(reason)
    if record.exchanges:
        record.start_s = min(e.due_s for e in record.exchanges if e.due_s is not None)
        record.end_s = max(e.ended_s or record.start_s for e in record.exchanges)
    missing = len(planned) - len(record.exchanges)
    if missing and not record.is_interrupted:
        record.failure = record.failure or NemotrtError(
            f"AIPerf recorded {len(record.exchanges)} of {len(planned)} requests."
        )


def _fill(exchange: Exchange, request: AiperfRequest, clock_s: float, *, is_open: bool) -> None:
    """Put what AIPerf recorded into an exchange.

    In an open loop latencies count from when AIPerf's own schedule gave the request out.
    """
    exchange.due_s = (request.credited_s if is_open else request.start_s) + clock_s
    exchange.sent_s = request.start_s + clock_s
    arrivals_s = itertools.accumulate(request.gaps_s, initial=exchange.sent_s)
    exchange.arrivals_s = list(arrivals_s)[1:]
    exchange.ended_s = exchange.arrivals_s[-1] if exchange.arrivals_s else exchange.sent_s
    exchange.cached_tokens = request.cached_tokens
    if not request.error:
        exchange.arrival_tokens = even_shares(request.osl, len(exchange.arrivals_s))


def _check(exchange: Exchange, request: AiperfRequest, api: OpenAiApi) -> None:
    """Raise TargetError unless prompt and answer have the tokens that were asked for."""
    if request.error:
        raise TargetError(f"request {exchange.index} failed: {request.error}", Ending.FAILED)
    check_complete(exchange)
    found = request.num_input_tokens
    # a chat template adds tokens to the prompt
    if not api.is_chat and found not in (None, exchange.isl):
        raise TargetError(
            f"the server read {found} prompt tokens where {exchange.isl} were meant; "
            "is --tokenizer that of the model?",
            Ending.WRONG_PROMPT,
        )
