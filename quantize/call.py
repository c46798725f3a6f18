"""`nemotrt.quantize(...)`: what `nemotrt quantize` does, as a function."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
from nemotrt.engines.checkpoint.lora.merging import MergingOptions, read_merging
from nemotrt.engines.model.numerics import GROUP_SIZES, Precision
from nemotrt.errors import ConfigError
from nemotrt.quantize.conversion.options import CalibrationText, QuantizeOptions
from nemotrt.quantize.gpus import choose_format, choose_recipe, wants_gguf
from nemotrt.quantize.recipes.recipe import Recipe
from nemotrt.quantize.writing.gguf.output import check_output, plan_output, write_output
from nemotrt.quantize.writing.writer import QuantizeResult

DEFAULT_TEXT = CalibrationText()


def quantize(
    checkpoint: str | Path,
    output: str | Path,
    recipe: str | None = None,
    *,
    gpu: str | None = None,
    calibration: str | Path | None = None,
    format: str | None = None,
    kv_cache: str = "none",
    group_size: int | None = None,
    mixed: bool = False,
    budget_gib: float | None = None,
    compensate: bool = False,
    text: str | Path | None = None,
    drawn: int = 0,
    lora: Sequence[str | Path] = (),
    force: bool = False,
) -> QuantizeResult:
    """Write a quantized checkpoint; return what was written.

    Args:
        checkpoint: a folder, OWNER/NAME[@REVISION] on the hub, "tiny" or "tiny-dense".
        output: the new folder, or NAME.gguf for llama.cpp. It appears when it is complete.
        recipe: the name of a recipe, or a YAML file; None: the recipe for `gpu`.
        gpu: a GPU on which the recipe must run.
        calibration: a folder with the calibration for static scales; it is made if it is missing.
        format: "modelopt", "compressed-tensors" or "gguf"; None: by recipe and output.
        kv_cache: type of the KV cache that the checkpoint asks for: "none", "fp8" or "int8".
        group_size: inputs that share a scale, for int4-wo: 32, 64 or 128; None: the recipe's.
        mixed: gives 8 bits to the linear layers that diverge most, for int4-wo: within 5 bits per
            weight, or within `budget_gib`.
        budget_gib: most GiB of all weights; it implies `mixed`.
        compensate: rounds so that later inputs make up for the errors of earlier ones (GPTQ), for
            int4-wo, on `text`.
        text: the calibration text, .jsonl or plain; None: a set that comes with the package.
        drawn: windows of text that the model writes itself; `compensate` reads them beside `text`.
        lora: LoRA adapters that are merged into the weights first, each DIR or DIR=WEIGHT.
        force: replaces an output that exists.

    Raises:
        ConfigError: a name is unknown, the recipe does not fit, or the output is in the way.
        ArtefactError: the checkpoint is damaged.
        EnvironmentUnfitError: the disk is too small, or the checkpoint can't be downloaded.
    """
    target = Path(output)
    chosen = choose_recipe(recipe, gpu, kv_cache).with_groups(group_size)
    folder = None if calibration is None else Path(calibration)
    to_gguf = wants_gguf(format, target)
    options = QuantizeOptions(
        choose_format(None if to_gguf else format, chosen),
        kv_cache,
        group_size,
        mixed=mixed,
        budget_gib=budget_gib,
        compensate=compensate,
        drawn=drawn,
        merging=MergingOptions(tuple(read_merging(str(one)) for one in lora)),
        calibration=folder,
        force=force,
        to_gguf=to_gguf,
    )
    _check_used(chosen, options, text)
    read_on = replace(DEFAULT_TEXT, text=None if text is None else Path(text))
    check_output(target, chosen, options)
    source = checkpoint_folder(str(checkpoint), quiet=True)
    plan_output(source, target, chosen, options, is_calibrated=False)  # before the long work
    if folder is not None:
        from nemotrt.quantize.calibration.calibrate import ensure_calibration

        ensure_calibration(
            source,
            folder,
            read_on.text,
            read_on.sequences,
            read_on.sequence_tokens,
            is_asked=text is not None,
            mergings=options.merging.lora,
            quiet=True,
        )
    if mixed or budget_gib is not None:
        from nemotrt.quantize.quality.layers.choice import choose_int8

        options, _ = choose_int8(source, target, chosen, options)
    return write_output(source, target, chosen, options, read_on)


def _check_used(recipe: Recipe, options: QuantizeOptions, text: str | Path | None) -> None:
    """Raise ConfigError if an argument has a wrong value, or would change nothing."""
    size, budget = options.group_size, options.budget_gib
    if size is not None and recipe.precision is not Precision.INT4_WO:
        raise ConfigError(f"group_size is for int4-wo; {recipe.name} has no groups to choose.")
    if size is not None and size not in GROUP_SIZES:
        raise ConfigError(f"group_size {size}: give one of {', '.join(map(str, GROUP_SIZES))}.")
    if budget is not None and budget <= 0:
        raise ConfigError(f"budget_gib {budget:g} is not above 0.")
    if options.drawn < 0:
        raise ConfigError(f"drawn {options.drawn}: give 0 or more windows.")
    if text is not None and options.calibration is None and not options.compensate:
        raise ConfigError("text is for calibration and compensate; neither is given.")
