"""What an engine calls the figures of a plan: one YAML file each, with its version and date."""

import datetime
from enum import StrEnum
from functools import cache
from importlib import resources

from pydantic import Field

from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ConfigError
from nemotrt.files.model_file import Strict, named_model, yaml_names

TABLES = resources.files("nemotrt.profiles.planning.launch") / "tables"
OWN = "nemotrt"


class Case(StrEnum):
    """What holds of a plan, and decides which words a command has."""

    HYBRID = "hybrid"
    DENSE = "dense"
    KEPT = "prefixes kept"
    WHOLE = "no prefix kept"
    SEVERAL = "several GPUs"
    GPU = "a GPU"
    CPU = "a CPU"
    HUB = "on the hub"
    NEMOTRON_NANO_2 = "nemotron-nano-2"
    QWEN3 = "qwen3"
    NEMOTRON_3 = "nemotron-3"
    OTHER_CHAT = "another chat format"


class Words(Strict):
    """Words of a command line, or a note, where all of `only` hold; {names} are of `Figures`."""

    words: tuple[str, ...]
    only: tuple[Case, ...] = ()


class Note(Strict):
    """What the engine can't do, or does otherwise, where all of `only` hold."""

    text: str = Field(min_length=1)
    only: tuple[Case, ...] = ()


class LaunchTable(Strict):
    """How one engine's server is started.

    Attributes:
        name: as `--launch` has it.
        version: of the argument parser that was read; `date` is when, `source` where it stands.
        planned_as: engines of the planner whose plans it takes; the first is the default.
        precisions: that it loads, and what it calls each.
        quantized_as: the format of `nemotrt quantize` that it loads.
        kv, ssm: what it calls the formats of the KV cache and of the SSM states; one that is
            missing it has not.
        kv_lacks, ssm_lacks, tp_lacks: why not, the last of tensor parallelism.
        before: commands that come first, as `command`.
        command: the first words of the server's.
        options: the others.
        file: the name of the YAML file that it reads, where it reads one.
        backend: whose arguments that file has.
        notes: what must be known beside it.
    """

    name: str
    title: str
    version: str
    date: datetime.date
    source: str = Field(min_length=1)
    planned_as: tuple[str, ...] = Field(min_length=1)
    precisions: dict[Precision, str]
    quantized_as: str = ""
    kv: dict[str, str]
    ssm: dict[str, str]
    kv_lacks: str = ""
    ssm_lacks: str = ""
    tp_lacks: str = ""
    before: tuple[tuple[Words, ...], ...] = ()
    command: tuple[str, ...]
    options: tuple[Words, ...]
    file: str = ""
    backend: str = ""
    notes: tuple[Note, ...] = ()


def known_launchers() -> list[str]:
    """Return the names of the engines whose commands are known."""
    return yaml_names(TABLES)


@cache
def load_table(name: str) -> LaunchTable:
    """Return an engine's table.

    Raises:
        ConfigError: no such engine.
    """
    return named_model(LaunchTable, TABLES, name, "engine to launch")


def planned_engine(table: LaunchTable, engine: str | None) -> str | None:
    """Return the engine to plan for a command; None leaves it to the GPU.

    Raises:
        ConfigError: the plan is to be of another engine than the command.
    """
    if engine is None:
        return None if table.name == OWN else table.planned_as[0]
    if engine not in table.planned_as:
        known = " or ".join(table.planned_as)
        raise ConfigError(
            f"--launch {table.name} serves a plan of --engine {known}, and not of {engine}; leave "
            "--engine out."
        )
    return engine
