"""`nemotrt build`."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from nemotrt.build.backend_options import check_options, option_values, with_backend_options
from nemotrt.build.limit_options import GivenLimits
from nemotrt.commandline.kinds import READABLE, choices
from nemotrt.commandline.options import filled, one_option, options_of
from nemotrt.commandline.shared import (
    config_option,
    dry_run_option,
    force_option,
    given_options,
    json_option,
    output_option,
    quiet_option,
)
from nemotrt.engines.backends import registry
from nemotrt.engines.checkpoint.hub.parameter import CHECKPOINT, offline_option
from nemotrt.engines.checkpoint.lora.merging import Merging, MergingOptions
from nemotrt.engines.model.numerics import BUILT, Precision
from nemotrt.progress import stage_printer

DESCRIPTION = """Build an engine directory from a checkpoint.

CHECKPOINT is a Hugging Face folder, quantized or not, a GGUF file, OWNER/NAME[@REVISION] on the
hub, or a built-in model: tiny, tiny-dense.

\b
Examples:
  nemotrt build tiny -o engine
  nemotrt build nvidia/NVIDIA-Nemotron-Nano-9B-v2 --gpu a10g -o engine-a10g
  nemotrt build CKPT --backend tensorrt-llm --gpu h100 -o bundle
"""


def _list_support(context: click.Context, _: click.Parameter, is_wanted: bool) -> None:
    """Print the table of GPUs, precisions and backends, and end the command."""
    if not is_wanted:
        return
    from nemotrt.build.support_table import lines

    click.echo("\n".join(lines()))
    context.exit()


@click.command(help=DESCRIPTION)
@click.argument("checkpoint", type=CHECKPOINT)
@output_option("New folder.", required=True, metavar="ENGINE")
@click.option(
    "--backend",
    type=click.Choice(registry.names()),
    default=None,
    help="What runs the engine; default tensorrt with --gpu, else native, or onnxruntime without a "
    "C++ compiler.",
)
@click.option("--gpu", help="Target of the GPU backends: a10g, a100, ...")
@click.option(
    "--precision",
    type=choices(BUILT),
    help="Weights and activations of the linears; default: as the checkpoint is.",
)
@one_option(MergingOptions, "lora")
@options_of(GivenLimits)
@click.option(
    "--limits",
    "limits_file",
    type=READABLE,
    help="Sequences and length from `nemotrt plan --write-limits`; flags override it.",
)
@with_backend_options
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_support,
    help="Print what is built for which GPU, how that was checked, and what `nemotrt check` found "
    "of this folder's engines.",
)
@force_option
@dry_run_option
@quiet_option
@json_option
@offline_option
@config_option
def build(
    checkpoint: str,
    output: Path,
    backend: str | None,
    gpu: str | None,
    precision: Precision | None,
    lora: tuple[Merging, ...],
    given_limits: GivenLimits,
    limits_file: Path | None,
    force: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Parse, build, print; `chosen` are the backends' own options by field."""
    from nemotrt.build.backend_options import default_backend
    from nemotrt.build.engine_builder import DEFAULT_LIMITS, BuildSpec, build_engine, check_spec
    from nemotrt.build.planned_limits import resolve_limits, two_sides_note
    from nemotrt.engines.artefact.manifest import MANIFEST_FILE
    from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
    from nemotrt.engines.checkpoint.lora.merged import open_merged
    from nemotrt.files.writing import check_target

    given = [option.opts[0] for option in given_options(click.get_current_context()).values()]
    if backend is None:
        backend, note = default_backend(gpu, given)
        if note and not quiet:
            click.echo(note, err=True)
    check_options(backend, given)
    own = filled(registry.find(backend).options_type, chosen)
    spec = BuildSpec(backend, gpu, precision, DEFAULT_LIMITS, own, lora)
    check_target(output, force=force, marks=[MANIFEST_FILE])
    source = checkpoint_folder(checkpoint)
    opened = open_merged(source, lora)
    if not quiet:
        for line in opened.notes():
            click.echo(line, err=True)
    resolved = check_spec(opened, spec)
    say = partial(click.echo, err=True)
    spec = resolve_limits(opened, spec, resolved, given_limits, limits_file, say=say)
    if dry_run and as_json:
        found = {"schema_version": 1} | asdict(replace(spec, precision=resolved))
        del found["options"], found["lora"]
        found |= {"lora": list(map(str, lora))} if lora else {}
        click.echo(json.dumps(found | option_values(own), default=str))
        return
    if dry_run:
        click.echo(f"would build {source} with {spec.backend}, {resolved}, into {output}", err=True)
        return
    with stage_printer(quiet) as report:
        manifest = build_engine(source, output, spec, force=force, report=report)
    if as_json:
        click.echo(json.dumps(manifest.model_dump(mode="json")))
        return
    target = f" for {manifest.gpu}" if manifest.gpu else ""
    click.echo(f"{output}: {manifest.backend} engine{target}, {manifest.precision}")
    if faults := manifest.options.get("layer_faults"):
        click.echo(f"The compiler's layers are not as expected: {faults}", err=True)
    if reason := manifest.options.get("state_layout_reason"):
        click.echo(two_sides_note(opened, spec, resolved, str(reason)), err=True)
    if not manifest.executed:
        click.echo(registry.find(manifest.backend).not_executed_note, err=True)
