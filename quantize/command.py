"""`nemotrt quantize`: parse, call, print."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotrt.commandline.options import key_of, options_of
from nemotrt.commandline.shared import (
    config_option,
    dry_run_option,
    force_option,
    given_options,
    json_option,
    output_option,
    quiet_option,
)
from nemotrt.engines.checkpoint.hub.parameter import CHECKPOINT, offline_option
from nemotrt.engines.checkpoint.quantized.scheme import Layout
from nemotrt.profiles.hardware.gpu_profile import known_gpus
from nemotrt.progress import readable_size
from nemotrt.quantize.conversion.options import CalibrationText, QuantizeOptions
from nemotrt.quantize.gpus import choose_format, choose_recipe, wants_gguf
from nemotrt.quantize.recipes.recipe import Recipe, recipe_names
from nemotrt.quantize.recipes.recipe_list import recipes_option
from nemotrt.quantize.recipes.unused_options import unused_note

if TYPE_CHECKING:
    from nemotrt.quantize.conversion.options import Setting
    from nemotrt.quantize.quality.layers.divergence import Unit

# Of this call alone: not what decided the output.
NOT_SAVED = ("output", "force", "resume", "sync", "dry-run", "json", "quiet")

FORMATS = "modelopt, compressed-tensors, or gguf for llama.cpp. [default: by GPU]"


@click.command()
@click.argument("checkpoint", type=CHECKPOINT)
@recipes_option()
@output_option("New folder, or NAME.gguf.", required=True)
@click.option("--gpu", help=f"Choose by GPU: {', '.join(known_gpus())}.")
@click.option("--recipe", help=f"{', '.join(recipe_names())}, or a YAML file of yours.")
@click.option("--format", "layout_name", help=FORMATS)
@click.option(
    "--keep", type=click.Choice(["attention-feeders"]), help="Layers that stay in 16 bits too."
)
@options_of(CalibrationText)
@options_of(QuantizeOptions)
@force_option
@dry_run_option
@json_option
@quiet_option
@offline_option
@config_option
def quantize(
    checkpoint: str,
    output: Path,
    gpu: str | None,
    recipe: str | None,
    layout_name: str | None,
    keep: str | None,
    calibration_text: CalibrationText,
    quantize_options: QuantizeOptions,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write CHECKPOINT quantized, for TensorRT-LLM, vLLM, llama.cpp and this package's engines.

    With --format gguf the output is one file for llama.cpp. int8-wo gives linears in Q8_0. int4-wo
    gives linears in Q4_0, and embeddings and head in Q8_0.

    CHECKPOINT is a Hugging Face folder, OWNER/NAME[@REVISION] on the hub, or a built-in tiny
    model's name. Weights stream from disk to disk; memory stays constant whatever the model's size.
    """
    from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
    from nemotrt.quantize.writing.gguf.output import (
        check_output,
        check_replaced,
        plan_output,
        write_output,
    )

    kv_cache, calibration = quantize_options.kv_cache, quantize_options.calibration
    chosen = choose_recipe(recipe, gpu, kv_cache).with_groups(quantize_options.group_size)
    if not chosen.precision.has_input_scale and kv_cache == "none":
        calibration = None  # nothing to take from it
    to_gguf = wants_gguf(layout_name, output)
    options = replace(
        quantize_options,
        layout=choose_format(None if to_gguf else layout_name, chosen),
        to_gguf=to_gguf,
        keep_feeders=keep is not None,
        calibration=calibration,
        settings=_settings(),
    )
    silent = quiet or as_json
    has_text = calibration is not None or options.compensate
    is_calibrated, clip = has_text, options.calibration_options.method
    note = unused_note(chosen, kv_cache, _changed(), is_calibrated=is_calibrated, clip=clip)
    if note and not quiet:
        click.echo(note, err=True)
    check_output(output, chosen, options)
    source = checkpoint_folder(checkpoint)
    check_replaced(output, source, options)
    if has_text:
        # what can't be done shows before the long work
        plan_output(source, output, chosen, options, is_calibrated=False)
    if calibration is not None and not dry_run:
        from nemotrt.quantize.calibration.calibrate import ensure_calibration

        given = given_options(click.get_current_context())
        ensure_calibration(
            source,
            calibration,
            calibration_text.text,
            calibration_text.sequences,
            calibration_text.sequence_tokens,
            mergings=options.merging.lora,
            is_asked=bool(given.keys() & {"text", "sequences", "sequence-tokens"}),
            quiet=silent,
        )
    if options.mixed or options.budget_gib is not None:
        from nemotrt.quantize.quality.layers.choice import choose_int8

        options, units = choose_int8(source, output, chosen, options, quiet=silent)
        if not silent:
            _print_choice(units, options)
    if dry_run:
        _print_plan(source, output, chosen, options, as_json=as_json)
        return
    result = write_output(source, output, chosen, options, calibration_text, quiet=silent)
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


def _print_choice(units: "list[Unit]", options: QuantizeOptions) -> None:
    """Print each unit's divergence in 4 bits, and which get 8."""
    click.echo("divergence of the whole model with 4 bits of this alone, nats:", err=True)
    for unit in units:
        bits = 8 if unit.weights[0] in options.int8 else 4
        names = ", ".join(name.removesuffix(".weight") for name in unit.weights)
        click.echo(f"  {unit.divergence:.2e}  {bits} bits  {names}", err=True)


def _who_loads(loaders: dict[str, str]) -> str:
    """Return one line: which engines take the checkpoint and which do not."""
    takes = [name for name, verdict in loaders.items() if verdict.startswith("yes")]
    others = [name for name in loaders if name not in takes]
    return f"loads in {', '.join(takes) or 'no engine'}; not in {', '.join(others)}"


def _changed() -> set[str]:
    """Return the options, without dashes, whose value is not the default."""
    context = click.get_current_context()
    return {
        key
        for key, option in given_options(context).items()
        if context.params.get(str(option.name)) not in (None, False, option.default)
    }


def _settings() -> "dict[str, Setting]":
    """Return this call's options by name, as a --config file spells them."""
    context = click.get_current_context()
    return {
        key_of(option): _written(value)
        for option in context.command.params
        if isinstance(option, click.Option)
        and key_of(option) not in NOT_SAVED
        and (value := context.params.get(str(option.name))) is not None
    }


def _written(value: Any) -> "Setting":
    """Return an option's value as a --config file has it."""
    if isinstance(value, tuple):
        return [str(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _print_plan(
    source: Path, output: Path, recipe: Recipe, options: QuantizeOptions, *, as_json: bool
) -> None:
    """Print what would be quantized, what would stay, and the size."""
    from nemotrt.engines.checkpoint.lora.merged import open_merged
    from nemotrt.quantize.writing.gguf.output import plan_output
    from nemotrt.quantize.writing.gguf.plan import WIDE
    from nemotrt.quantize.writing.writer import COPIED

    missing = options.calibration is not None and not options.calibration.exists()
    target_bytes, selection = plan_output(
        source, output, recipe, options, is_calibrated=not missing
    )
    if missing:
        click.echo(f"{options.calibration} is not there: it would be calibrated first.", err=True)
    for line in open_merged(source, options.merging.lora).notes(COPIED):
        click.echo(line, err=True)
    layout = Layout.GGUF.value if options.to_gguf else options.layout.value
    if as_json:
        value = {
            "schema_version": 1,
            "recipe": recipe.name,
            "quant_algo": recipe.algo,
            "format": layout,
            "target_bytes": target_bytes,
            "quantize": selection.weights,
            "int8": sorted(selection.int8),
            "exclude": selection.exclude,
        }
        click.echo(json.dumps(value))
        return
    for name in selection.weights:
        click.echo(f"quantize {name}{', 8 bits' if name in selection.int8 else ''}")
    for name in selection.exclude:
        if not (options.to_gguf and name == "lm_head"):
            click.echo(f"keep     {name}")
    if options.to_gguf:
        click.echo(f"{WIDE}     embeddings and head")
    click.echo(f"{recipe.name}, {layout}: {readable_size(target_bytes)}")
