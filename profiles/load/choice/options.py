"""Which load to run, as options of `nemotrt profile`; nothing heavy is imported."""

from dataclasses import dataclass
from pathlib import Path

import click

from nemotrt.commandline import ABOVE_0, COUNT, option
from nemotrt.profiles.load.workload import Language

ISL, OSL, PER_USER = 256, 64, 8


@dataclass(frozen=True, slots=True)
class LoadChoice:
    """What the user gave; None where nothing."""

    preset: str | None = option(None, "8k16k, 1k8k, 32k1k, 128k or smoke: lengths and requests.")
    isl: int | None = option(None, "Prompt tokens.", kind=COUNT, unset=str(ISL))
    osl: int | None = option(None, "Answer tokens.", kind=COUNT, unset=str(OSL))
    num_requests: int | None = option(
        None,
        "Measured.",
        "-n",
        "--num-requests",
        kind=COUNT,
        unset=f"{PER_USER} a user",
    )
    num_warmup: int | None = option(
        None, "Requests before.", "--warmup", kind=click.IntRange(0), unset="1 a user"
    )
    requests_per_s: float | None = option(None, "Open loop, per s.", "--request-rate", kind=ABOVE_0)
    is_evenly_paced: bool = option(False, "Fixed gaps, not Poisson's.", "--evenly-paced")
    trace: Path | None = option(None, "JSONL: timestamp (ms), input_length, output_length.")
    trace_speedup: float = option(1.0, "How much faster than it was.", kind=ABOVE_0)
    slos: tuple[str, ...] = option((), "Limit for goodput: ttft_ms:500; may be repeated.", "--slo")
    language: Language = option(Language.MIXED, "Of the prompts' text.")
    seed: int | None = option(None, "Of prompts and arrivals.", unset="a new one")
