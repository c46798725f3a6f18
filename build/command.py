"""`nemotrt build`."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from nemotrt.build.backend_options import (
    check_options,
    option_values,
    options_of,
    with_backend_options,
)
from nemotrt.commandline import (
    COUNT,
    config_option,
    dry_run_option,
    force_option,
    given_options,
    json_option,
    output_option,
    quiet_option,
)
from nemotrt.engines.backends import registry
from nemotrt.engines.model.numerics import BUILT, Precision
from nemotrt.progress import stage_printer

DESCRIPTION = """Build an engine directory from a checkpoint.

CHECKPOINT is a Hugging Face folder, quantized or not, or a built-in model: tiny, tiny-dense.

\b
Examples:
  nemotrt build tiny -o engine
  nemotrt build CKPT --gpu a10g -o engine-a10g
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
@click.argument("checkpoint")
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
    type=click.Choice([item.value for item in BUILT]),
    help="Weights and activations of the linears; default: as the checkpoint is.",
)
@click.option(
    "--max-batch-size",
    type=COUNT,
    help="Sequences at once.  [default: 8; with --gpu: as many as the planner says fit]",
)
@click.option(
    "--max-seq-len",
    type=COUNT,
    help="Prompt plus output.  [default: 4096; with --gpu: 24576, or what the model takes]",
)
@click.option(
    "--chunk-tokens",
    type=COUNT,
    help="Prompt tokens a step; edge-llm and tensorrt-llm-1.2 take no longer prompt.  [default: "
    "128; tensorrt: 320; tensorrt-llm: the planner's; the other two: 8192]",
)
@click.option(
    "--limits",
    "limits_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Sequences and length from `nemotrt plan --write-limits`; flags override it.",
)
@with_backend_options
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_support,
    help="Print what is built for which GPU, and how that was checked.",
)
@force_option
@dry_run_option
@quiet_option
@json_option
@config_option
def build(
    checkpoint: str,
    output: Path,
    backend: str | None,
    gpu: str | None,
    precision: str | None,
    max_batch_size: int | None,
    max_seq_len: int | None,
    chunk_tokens: int | None,
    limits_file: Path | None,
    force: bool,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Parse, build, print; `chosen` are the backends' own options by field."""
    from nemotrt.build.default_backend import default_backend
    from nemotrt.build.engine_builder import DEFAULT_LIMITS, BuildSpec, build_engine, check_spec
    from nemotrt.build.given_limits import GivenLimits
    from nemotrt.build.planned_limits import resolve_limits, two_sides_note
    from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
    from nemotrt.engines.tiny.models import resolve_checkpoint
    from nemotrt.files.writing import check_target

    source = resolve_checkpoint(checkpoint)
    given = [option.opts[0] for option in given_options(click.get_current_context()).values()]
    if backend is None:
        backend, note = default_backend(gpu, given)
        if note and not quiet:
            click.echo(note, err=True)
    check_options(backend, given)
    own = options_of(registry.find(backend), chosen)
    spec = BuildSpec(backend, gpu, Precision(precision) if precision else None, DEFAULT_LIMITS, own)
    check_target(output, force=force)
    opened = open_checkpoint(source)
    if not quiet:
        for line in opened.notes():
            click.echo(line, err=True)
    resolved = check_spec(opened, spec)
    limits = GivenLimits(max_batch_size, max_seq_len, chunk_tokens)
    say = partial(click.echo, err=True)
    spec = resolve_limits(opened, spec, resolved, limits, limits_file, say=say)
    if dry_run and as_json:
        found = {"schema_version": 1} | asdict(replace(spec, precision=resolved))
        del found["options"]
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
