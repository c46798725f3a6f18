"""What `nemotrt quantize` takes beside the recipe; the defaults are the command's defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from nemotrt.commandline.kinds import ABOVE_0, COUNT, READABLE, FloatRange
from nemotrt.commandline.options import option
from nemotrt.engines.checkpoint.lora.merging import MergingOptions
from nemotrt.engines.model.numerics import GROUP_SIZES
from nemotrt.quantize.conversion.formats import CheckpointFormat

METHODS = ("amax", "percentile", "mse")
Setting = str | int | float | bool | list[str] | None


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """What a calibration is made on."""

    text: Path | None = option(
        None,
        "Calibration text: .jsonl with a text per line, or plain.",
        kind=READABLE,
        unset="a shipped set",
    )
    sequences: int = option(64, "Most windows of the text.", kind=COUNT)
    sequence_tokens: int = option(256, "Tokens of a window.", kind=click.IntRange(2))


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """How static scales are computed from a calibration."""

    method: str = option(
        METHODS[0], "Where static scales are cut.", "--clip", kind=click.Choice(METHODS)
    )
    percentile: float = option(
        99.99, "Percentile of the inputs, with --clip percentile.", kind=FloatRange(50, 100)
    )
    fold: bool = option(True, "Keep SmoothQuant's factors as pre_quant_scale.", "--no-fold")


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """How a quantized checkpoint is written, beside its recipe.

    Attributes:
        layout: the format of an output folder.
        keep_feeders: leave the Mamba blocks just before attention in 16 bits.
        rounded: weight name -> file with its codes, rounded before (`compensate`).
        int8: weights that get 8 bits beside others of 4 (`mixed`).
        to_gguf: write one GGUF file instead of a folder.
        settings: the call's own settings, for the record.
    """

    layout: CheckpointFormat = CheckpointFormat.MODELOPT  # of a folder
    kv_cache: str = option(
        "none", "Type of the KV cache.", kind=click.Choice(["none", "fp8", "int8"])
    )
    group_size: int | None = option(
        None,
        "Inputs that share a scale, for int4-wo.",
        kind=click.Choice(GROUP_SIZES),
        unset="the recipe's",
    )
    keep_feeders: bool = False
    mixed: bool = option(
        False,
        "Give the linears that diverge most 8 bits beside the others' 4, for int4-wo: "
        "within 5 bits per weight, or --budget-gib.",
    )
    budget_gib: float | None = option(
        None,
        "Most GiB of all weights; 8 bits are given as with --mixed, within them.",
        kind=ABOVE_0,
    )
    compensate: bool = option(
        False,
        "Round so that later inputs make up for earlier ones' errors (GPTQ), for int4-wo, "
        "on --text.",
    )
    drawn: int = option(
        0,
        "Windows of text that the model writes itself, on this CPU; --compensate reads them too.",
        kind=click.IntRange(0),
    )
    rounded: Mapping[str, Path] = field(default_factory=dict)  # weight -> its codes, found before
    int8: tuple[str, ...] = ()  # weights of 8 bits beside others of 4
    merging: MergingOptions = field(default_factory=MergingOptions)
    calibration: Path | None = option(
        None, "Folder with the calibration for static scales; it is made if it is not there."
    )
    calibration_options: CalibrationOptions = field(default_factory=CalibrationOptions)
    force: bool = False
    resume: bool = option(False, "Finish a run that was killed.")
    sync: bool = option(
        False, "Force all bytes to the disk first, so that a power failure loses nothing."
    )
    to_gguf: bool = False  # one file instead of a folder
    settings: dict[str, Setting] = field(default_factory=dict)  # the call's, for the record
