"""`nemotrt evaluate`: parse, call, print."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotrt.commandline.kinds import COUNT, READABLE
from nemotrt.commandline.shared import config_option, json_option, output_option, quiet_option
from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions, weight_options
from nemotrt.engines.checkpoint.hub.parameter import CHECKPOINT, offline_option
from nemotrt.errors import ConfigError

if TYPE_CHECKING:
    from nemotrt.quantize.quality.quality import Quality


@click.command()
@click.argument("candidate", type=CHECKPOINT)
@click.option(
    "--against",
    type=CHECKPOINT,
    metavar="CHECKPOINT",
    required=True,
    help="The 16 bit checkpoint: a folder, a hub id, or a built-in model.",
)
@click.option(
    "--text",
    "texts",
    type=READABLE,
    multiple=True,
    help="Plain text or .jsonl; may be repeated, one row of the table each. "
    "[default: the shipped held-out English and Japanese]",
)
@click.option(
    "--sequences", type=COUNT, default=16, show_default=True, help="Windows of each text."
)
@click.option(
    "--sequence-tokens",
    type=click.IntRange(2),
    default=256,
    show_default=True,
    help="Tokens of a window.",
)
@weight_options
@output_option("Write a self-contained HTML page.", old=("--page",))
@json_option
@quiet_option
@offline_option
@config_option
def evaluate(
    candidate: str,
    against: str,
    texts: tuple[Path, ...],
    sequences: int,
    sequence_tokens: int,
    open_options: OpenOptions,
    output: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare CANDIDATE, a quantized checkpoint or an engine, with the 16 bit checkpoint.

    A checkpoint runs on the CPU in its own arithmetic, activations too: what a GPU would compute,
    without a GPU. Memory is that of the largest block, so any size can be compared. An engine
    directory runs itself, one token at a time; it shows logits only, so no layers are listed.
    """
    from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
    from nemotrt.engines.tiny.models import FOLDER
    from nemotrt.files.writing import write_file
    from nemotrt.progress import count_progress
    from nemotrt.quantize.calibration.texts import read_texts, token_windows
    from nemotrt.quantize.quality import evaluate as quality

    if output is not None and not output.parent.is_dir():
        raise ConfigError(f"--output {output}: the folder {output.parent} does not exist.")
    silent = quiet or as_json
    reference, target = map(checkpoint_folder, (against, candidate))
    if open_options != AS_BUILT and not quality.is_engine(target):
        raise ConfigError(f"--checkpoint and --verify are for engines; {target} is a checkpoint.")
    paths = texts or tuple(FOLDER / "heldout" / f"{name}.txt" for name in ("en", "ja"))
    stems = [path.stem for path in paths]
    tokens = {
        path.stem if stems.count(path.stem) == 1 else str(path): token_windows(
            reference, read_texts(path), sequence_tokens, sequences
        )
        for path in paths
    }
    total = quality.num_steps(reference, target, tokens)
    with count_progress("comparing", total, quiet=silent) as progress:
        result = quality.evaluate(reference, target, tokens, progress, open_options)
    if output is not None:
        from nemotrt.quantize.quality.quality_page import quality_page

        write_file(output, quality_page(result))
    if as_json:
        click.echo(json.dumps({"schema_version": 1} | asdict(result), allow_nan=False))
    else:
        _print(result)


def _print(result: "Quality") -> None:
    """Print a line a text, then the worst layers and linears."""
    what = f"{result.backend} engine, {result.precision}" if result.backend else result.precision
    click.echo(f"{result.candidate}: {what}, against {result.reference}")
    click.echo(
        f"{'text':12} {'tokens':>8} {'perplexity':>11} {'reference':>10} {'change':>9} "
        f"{'KL, nats':>9} {'top-1':>7}"
    )
    for text in result.texts:
        change = text.perplexity / text.reference_perplexity - 1
        click.echo(
            f"{text.name:12} {text.num_tokens:8} {text.perplexity:11.3f} "
            f"{text.reference_perplexity:10.3f} {change:+9.3%} {text.mean_kl_divergence:9.5f} "
            f"{text.top1_agreement:7.2%}"
        )
    if result.backend:
        click.echo("An engine shows logits only: evaluate its checkpoint for layers and linears.")
        return
    click.echo("worst layers, relative error of what they add:")
    for layer in result.layers[:5]:
        texts = ", ".join(f"{name} {error:.4f}" for name, error in layer.by_text.items())
        click.echo(
            f"  {layer.layer:3} {layer.kind:9} {layer.relative_error:8.4f} ({texts})   "
            f"stream after it {layer.stream_relative_error:.4f}"
        )
    if result.linears:
        click.echo("worst linears on the reference's input, relative errors:")
        click.echo(f"  {'weight':>8} {'input':>8} {'output':>8}")
    for linear in result.linears[:5]:
        click.echo(
            f"  {linear.weight_error:8.4f} {linear.input_error:8.4f} {linear.output_error:8.4f}   "
            f"{linear.name}"
        )
