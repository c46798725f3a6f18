"""Which load to run, as options of `nemotrt profile`; nothing heavy is imported."""

from dataclasses import dataclass
from pathlib import Path

import click

from nemotrt.commandline.kinds import ABOVE_0, COUNT, FloatRange
from nemotrt.commandline.options import option
from nemotrt.profiles.load.workload import ErrorLimit, Language

ISL, OSL, PER_USER = 256, 64, 8


@dataclass(frozen=True, slots=True)
class LoadChoice:
    """What the user gave; None where nothing."""

    preset: str | None = option(None, "8k16k, 1k8k, 32k1k, 128k, agents or smoke: a load by name.")
    isl: int | None = option(
        None, "Prompt tokens; of a conversation, what a turn adds.", kind=COUNT, unset=str(ISL)
    )
    osl: int | None = option(None, "Answer tokens.", kind=COUNT, unset=str(OSL))
    num_requests: int | None = option(
        None,
        "Measured requests, or conversations.",
        "-n",
        "--num-requests",
        kind=COUNT,
        unset=f"{PER_USER} per user",
    )
    num_warmup: int | None = option(
        None,
        "Requests, or conversations, before the measured ones.",
        "--warmup",
        kind=click.IntRange(0),
        unset="1 per user; no conversation",
    )
    num_turns: int | None = option(
        None,
        "Agents have conversations; each turn sends the history again.",
        "--turns",
        kind=COUNT,
        unset="single requests",
    )
    system_tokens: int | None = option(
        None,
        "Tokens of system prompt and tools, which agents share.",
        kind=click.IntRange(0),
        unset="0",
    )
    think_s: float | None = option(
        None,
        "Seconds that a conversation pauses before each later turn.",
        kind=FloatRange(0),
        unset="0",
    )
    requests_per_s: float | None = option(
        None,
        "Requests per second, sent whether or not answers came (open loop).",
        "--request-rate",
        kind=ABOVE_0,
    )
    is_evenly_paced: bool = option(
        False, "Send requests at fixed gaps, not at random ones (Poisson).", "--evenly-paced"
    )
    trace: Path | None = option(
        None, "JSONL: timestamp (ms), input_length, output_length; or conversations."
    )
    trace_speedup: float = option(1.0, "How many times faster to replay the trace.", kind=ABOVE_0)
    slos: tuple[str, ...] = option((), "Limit for goodput: ttft_ms:500; may be repeated.", "--slo")
    max_errors: str = option(
        str(ErrorLimit()), "Requests that may fail: a count, or a share of the measured ones."
    )
    max_retries: int = option(
        0,
        "Retries of a request that a server refuses with Retry-After; latencies count from when it "
        "was due first, and it is no success.",
        "--retries",
        kind=click.IntRange(0),
    )
    language: Language = option(Language.MIXED, "Language of the prompts' text.")
    seed: int | None = option(None, "Seed of prompts and arrivals.", unset="a new one")
