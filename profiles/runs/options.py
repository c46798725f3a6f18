"""How often a load is run, who sends it and what stands beside it, as options; nothing heavy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from nemotrt.commandline.kinds import COUNT, FloatRange, choices
from nemotrt.commandline.options import option
from nemotrt.engines.checkpoint.hub.parameter import MODEL
from nemotrt.engines.model.numerics import BUILT, Precision

MIN_REPEATS = 3  # two runs that happen to agree settle nothing


class Driver(StrEnum):
    """Who sends a load."""

    NEMOTRT = "nemotrt"
    AIPERF = "aiperf"


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """Which concurrencies are run, and how often."""

    concurrency: str = option("1", "Users: 8, or 1,4,16.", "-c", "--concurrency")
    search: bool = option(False, "Find the best concurrency: 1, 2, 4, ..., then between.")
    repeat: int = option(1, "Runs of the same load.", kind=COUNT)
    within_percent: float | None = option(
        None,
        "Repeat until the mean throughput is known to so many percent; --repeat is the most.",
        "--within",
        kind=FloatRange(0.01),
    )
    resume: bool = option(False, "Keep the complete runs in OUTPUT, and go on.")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Who sends a load, and what a result says beside what was measured.

    `facts` are what a server has and does not say, by their names.
    """

    driver: Driver = option(
        Driver.NEMOTRT,
        "Who sends the load: our own driver, or NVIDIA's AIPerf (OpenAI endpoints).",
    )
    aiperf: str = option("aiperf", "AIPerf's program.")
    metrics_url: str = option(
        "", "The server's Prometheus page.", unset="of an OpenAI endpoint, where it has it"
    )
    predict: str | None = option(
        None, "Put the planner's prediction beside the run: a GPU's name, or this-machine."
    )
    predict_model: str | None = option(
        None,
        "Known name, folder or hub id.",
        kind=MODEL,
        metavar="MODEL",
        unset="the engine directory",
    )
    predict_precision: Precision | None = option(
        None, "Precision to predict.", kind=choices(BUILT), unset="the target's, else the model's"
    )
    precision: Precision | None = option(
        None, "What a server runs in, where it does not say: bf16, fp8, ...", kind=choices(BUILT)
    )
    hardware_from: str | None = option(
        None,
        "Take a server's hardware from `nemotrt profile gpu --serve` beside it.",
        metavar="URL",
    )
    facts: Mapping[str, str] = field(default_factory=dict)

    def told(self) -> dict[str, str]:
        """Return what the user says of the target."""
        told = {} if self.precision is None else {"precision": self.precision.value}
        return {**self.facts, **told}
