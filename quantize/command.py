"""`nemotrt quantize`: parse, call, print."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotrt.profiles.hardware.gpu_profile import known_gpus
from nemotrt.quantize.conversion.progress import byte_progress, readable_size
from nemotrt.quantize.gpus import choose_format, choose_recipe
from nemotrt.quantize.recipes.config_file import NOT_SETTINGS, config_option, option_name
from nemotrt.quantize.recipes.recipe import Recipe, recipe_names
from nemotrt.quantize.recipes.recipe_list import recipes_option
from nemotrt.quantize.recipes.unused_options import unused_note

if TYPE_CHECKING:
    from nemotrt.quantize.writing.writer import QuantizeOptions, Setting

# Of this call alone: not what decided the output.
NOT_SAVED = (*NOT_SETTINGS, "output", "force", "resume", "sync", "dry-run", "json", "quiet")


@click.command()
@click.argument("checkpoint")
@config_option()
@recipes_option()
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="New folder.")
@click.option("--gpu", help=f"Choose by GPU: {', '.join(known_gpus())}.")
@click.option("--recipe", help=f"{', '.join(recipe_names())}, or a YAML file of yours.")
@click.option("--format", "layout", help="modelopt or compressed-tensors. [default: by GPU]")
@click.option(
    "--kv-cache", type=click.Choice(["none", "fp8", "int8"]), default="none", show_default=True
)
@click.option("--keep", type=click.Choice(["attention-feeders"]), help="Spare these layers too.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Folder with the calibration for static scales; made first if it isn't there.",
)
@click.option(
    "--text",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Calibration text: .jsonl with a text a line, or plain. [default: a shipped set]",
)
@click.option("--sequences", type=click.IntRange(1), default=64, show_default=True)
@click.option("--sequence-tokens", type=click.IntRange(2), default=256, show_default=True)
@click.option(
    "--clip", type=click.Choice(["amax", "percentile", "mse"]), default="amax", show_default=True
)
@click.option("--percentile", type=click.FloatRange(50, 100), default=99.99, show_default=True)
@click.option("--no-fold", is_flag=True, help="Keep SmoothQuant's factors as pre_quant_scale.")
@click.option("--resume", is_flag=True, help="Finish a run that was killed.")
@click.option("--sync", is_flag=True, help="Outlive a power failure: force all to the disk first.")
@click.option("--force", is_flag=True, help="Replace the output folder.")
@click.option("--dry-run", is_flag=True, help="Print the plan, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, no summary.")
def quantize(
    checkpoint: str,
    output: Path,
    gpu: str | None,
    recipe: str | None,
    layout: str | None,
    kv_cache: str,
    keep: str | None,
    calibration: Path | None,
    text: Path | None,
    sequences: int,
    sequence_tokens: int,
    clip: str,
    percentile: float,
    no_fold: bool,
    resume: bool,
    sync: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write CHECKPOINT quantized, for TensorRT-LLM, vLLM and this package's engines.

    CHECKPOINT is a Hugging Face folder, or the name of a built-in tiny model. Weights stream from
    disk to disk; memory stays constant whatever the model's size.
    """
    from nemotrt.engines.tiny.models import resolve_checkpoint
    from nemotrt.files.writing import check_target
    from nemotrt.quantize.scales.adjust import CalibrationOptions
    from nemotrt.quantize.writing.writer import (
        QuantizeOptions,
        plan,
        quantize_checkpoint,
        work_bytes,
    )

    chosen = choose_recipe(recipe, gpu, kv_cache)
    if not chosen.precision.has_input_scale and kv_cache == "none":
        calibration = None  # nothing to take from it
    source = resolve_checkpoint(checkpoint)
    options = QuantizeOptions(
        layout=choose_format(layout),
        kv_cache=kv_cache,
        keep_feeders=keep is not None,
        calibration=calibration,
        calibration_options=CalibrationOptions(clip, percentile, not no_fold),
        force=force,
        resume=resume,
        sync=sync,
        settings=_settings(),
    )
    silent = quiet or as_json
    is_calibrated = calibration is not None
    note = unused_note(chosen, kv_cache, _changed(), is_calibrated=is_calibrated, clip=clip)
    if note and not quiet:
        click.echo(note, err=True)
    check_target(output, force=force)
    if calibration is not None and not dry_run:
        from nemotrt.quantize.calibration.calibrate import ensure_calibration

        plan(source, chosen, options, is_calibrated=False)  # what can't be done shows before
        ensure_calibration(
            source,
            calibration,
            text,
            sequences,
            sequence_tokens,
            is_asked=_is_given("text", "sequences", "sequence_tokens"),
            quiet=silent,
        )
    if dry_run:
        _print_plan(source, chosen, options, as_json=as_json)
        return
    total = work_bytes(source, chosen, options)
    with byte_progress(chosen.name, total, quiet=silent) as progress:
        result = quantize_checkpoint(source, output, chosen, options, progress=progress)
    if as_json:
        click.echo(json.dumps(asdict(result) | {"schema_version": 1}, default=str))
    elif not quiet:
        click.echo(
            f"{result.target}: {result.num_linears} linears as {result.quant_algo}, "
            f"{readable_size(result.source_bytes)} -> {readable_size(result.target_bytes)} "
            f"in {result.seconds:.1f} s ({result.gb_per_s:.2f} GB/s)"
        )
        for line in result.notes:
            click.echo(line, err=True)
        click.echo(f"{_who_loads(result.loaders)}; nemotrt inspect {output} says why", err=True)


def _who_loads(loaders: dict[str, str]) -> str:
    """Return one line: which engines take the checkpoint and which do not."""
    takes = [name for name, verdict in loaders.items() if verdict.startswith("yes")]
    others = [name for name in loaders if name not in takes]
    return f"loads in {', '.join(takes) or 'no engine'}; not in {', '.join(others)}"


def _is_given(*names: str) -> bool:
    """Whether the command line or the --config file has any of these parameters."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return any(context.get_parameter_source(name) is not default for name in names)


def _changed() -> set[str]:
    """Return the options, without dashes, whose value is not the default."""
    context = click.get_current_context()
    return {
        option_name(option)
        for option in context.command.params
        if isinstance(option, click.Option)
        and context.params.get(str(option.name)) not in (None, False, option.default)
    }


def _settings() -> "dict[str, Setting]":
    """Return this call's options by name, as a --config file spells them."""
    context = click.get_current_context()
    return {
        option_name(option): str(value) if isinstance(value, Path) else value
        for option in context.command.params
        if isinstance(option, click.Option)
        and option_name(option) not in NOT_SAVED
        and (value := context.params[str(option.name)]) is not None
    }


def _print_plan(source: Path, recipe: Recipe, options: "QuantizeOptions", *, as_json: bool) -> None:
    """Print what would be quantized, what would stay, and the size."""
    from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
    from nemotrt.quantize.writing.writer import COPIED, plan

    missing = options.calibration is not None and not options.calibration.exists()
    shards, selection, _ = plan(source, recipe, options, is_calibrated=not missing)
    if missing:
        click.echo(f"{options.calibration} is not there: it would be calibrated first.", err=True)
    for line in open_checkpoint(source).notes(COPIED):
        click.echo(line, err=True)
    target_bytes = sum(shard.num_bytes for shard in shards)
    if as_json:
        value = {
            "schema_version": 1,
            "recipe": recipe.name,
            "quant_algo": recipe.algo,
            "format": options.layout.value,
            "target_bytes": target_bytes,
            "quantize": selection.weights,
            "exclude": selection.exclude,
        }
        click.echo(json.dumps(value))
        return
    for name in selection.weights:
        click.echo(f"quantize {name}")
    for name in selection.exclude:
        click.echo(f"keep     {name}")
    click.echo(f"{recipe.name}, {options.layout}: {readable_size(target_bytes)}")
