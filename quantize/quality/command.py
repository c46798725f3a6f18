"""`nemotrt evaluate`: parse, call, print."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotrt.commandline.kinds import COUNT, FOLDER, READABLE, FloatRange
from nemotrt.commandline.shared import (
    config_option,
    force_option,
    json_option,
    output_option,
    quiet_option,
)
from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions, weight_options
from nemotrt.engines.checkpoint.hub.parameter import CHECKPOINT, offline_option
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ConfigError

if TYPE_CHECKING:
    from nemotrt.quantize.quality.quality import Quality
    from nemotrt.quantize.quality.tasks.paired import TaskScore


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
@click.option("--sequences", type=COUNT, help="Most windows of each text. [default: whole texts]")
@click.option(
    "--sequence-tokens",
    type=click.IntRange(2),
    default=256,
    show_default=True,
    help="Tokens of a window.",
)
@click.option(
    "--minutes",
    type=FloatRange(0.01),
    help="Take as many windows as fit into this time on this machine; for checkpoints.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that keeps the 16 bit model's results: a later comparison with the same model "
    "takes them from it and runs the candidate alone.",
)
@click.option(
    "--tasks",
    callback=lambda _context, _option, value: tuple(value.split(",")) if value else (),
    metavar="TASK[,TASK...]",
    help="Tasks of lm-eval in place of texts, on engines in this process.",
)
@click.option(
    "--task-folder",
    type=FOLDER,
    help="YAML files of more tasks; functions that they name run as code.",
)
@click.option("--task-limit", type=COUNT, help="Most items of each task.")
@click.option("--shots", type=click.IntRange(0), help="Examples before an item.")
@click.option("--chat", is_flag=True, help="Put the items through the chat template.")
@weight_options
@output_option("Write a self-contained HTML page.", old=("--page",))
@force_option
@json_option
@quiet_option
@offline_option
@config_option
def evaluate(
    candidate: str,
    against: str,
    texts: tuple[Path, ...],
    sequences: int | None,
    sequence_tokens: int,
    minutes: float | None,
    keep: Path | None,
    tasks: tuple[str, ...],
    task_folder: Path | None,
    task_limit: int | None,
    shots: int | None,
    chat: bool,
    open_options: OpenOptions,
    output: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compare CANDIDATE, a quantized checkpoint or an engine, with the 16 bit checkpoint.

    A checkpoint runs on the CPU in its own arithmetic, activations too: what a GPU would compute,
    without a GPU. Memory is that of the largest block, so any size can be compared. An engine
    directory runs as it is, one token at a time; it shows logits only, so no layers are listed.
    Figures are of whole texts, each with a standard error. The output names what was left out.
    """
    from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
    from nemotrt.engines.tiny.models import FOLDER as SHIPPED
    from nemotrt.files.writing import check_file, write_file
    from nemotrt.progress import count_progress
    from nemotrt.quantize.calibration.texts import (
        nested_windows,
        read_texts,
        spread_windows,
        text_windows,
    )
    from nemotrt.quantize.quality import evaluate as quality
    from nemotrt.quantize.quality.tasks.run import TaskOptions, run_tasks

    if output is not None:
        check_file(output, force=force)
    silent = quiet or as_json
    reference, target = map(checkpoint_folder, (against, candidate))
    if open_options != AS_BUILT and not quality.is_engine(target):
        raise ConfigError(f"--checkpoint and --verify are for engines; {target} is a checkpoint.")
    if tasks:
        asked = TaskOptions(tasks, task_folder, task_limit, shots, chat)
        of_texts = {"text": texts, "sequences": sequences, "minutes": minutes, "output": output}
        of_texts |= {"keep": keep}
        _check_apart(of_texts)
        with count_progress("items of both models", None, quiet=silent) as progress:
            scores = run_tasks(reference, target, asked, open_options, progress)
        _print_scores(scores, target, reference, as_json=as_json)
        return
    if task_folder or task_limit or shots is not None or chat:
        raise ConfigError("--task-folder, --task-limit, --shots and --chat go with --tasks.")
    paths = texts or tuple(SHIPPED / "heldout" / f"{name}.txt" for name in ("en", "ja"))
    stems = [path.stem for path in paths]
    found = {
        path.stem if stems.count(path.stem) == 1 else str(path): text_windows(
            reference, read_texts(path), sequence_tokens
        )
        for path in paths
    }
    most = sequences
    if minutes is not None:
        windows = {name: rows for name, (rows, _) in found.items()}
        fitting = quality.windows_within(reference, target, windows, minutes, keep)
        most = fitting if sequences is None else min(fitting, sequences)
    chosen = spread_windows if keep is None else nested_windows
    tokens = {name: chosen(rows, most) for name, (rows, _) in found.items()}
    left_out = {name: count - tokens[name].size for name, (_, count) in found.items()}
    total = quality.num_steps(reference, target, tokens)
    with count_progress("comparing", total, quiet=silent) as progress:
        result = quality.evaluate(reference, target, tokens, progress, open_options, left_out, keep)
    if output is not None:
        from nemotrt.quantize.quality.quality_page import quality_page

        write_file(output, quality_page(result))
    if as_json:
        click.echo(json.dumps({"schema_version": 1} | asdict(result), allow_nan=False))
    else:
        _print(result)


def _check_apart(of_texts: Mapping[str, object]) -> None:
    """Raise ConfigError if an option of texts is given with tasks."""
    if given := [f"--{name}" for name, value in of_texts.items() if value]:
        raise ConfigError(f"{', '.join(given)}: of texts; --tasks has its own items.")


def _print_scores(
    scores: "list[TaskScore]", candidate: Path, reference: Path, *, as_json: bool
) -> None:
    """Print a line a metric; the interval is of the difference, item by item."""
    if as_json:
        value = {"candidate": str(candidate), "reference": str(reference)}
        items = [asdict(score) for score in scores]
        click.echo(json.dumps({"schema_version": 1} | value | {"tasks": items}))
        return
    click.echo(f"{candidate} against {reference}")
    click.echo(
        f"{'task':24} {'metric':20} {'items':>6} {'reference':>10} {'candidate':>10} "
        f"{'difference, 95 %':>26}"
    )
    for score in scores:
        told = "no figure of each item"
        if (found := score.interval) is not None:
            told = f"{found.difference:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
        click.echo(
            f"{score.task:24} {score.metric:20} {score.num_items:6} {score.reference:10.4f} "
            f"{score.candidate:10.4f} {told:>26}"
        )


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
        if errors := text.standard_errors:
            click.echo(
                f"{'  +- 1 s.e.':12} {text.num_windows:8} {errors.perplexity:11.3f} "
                f"{errors.reference_perplexity:10.3f} {errors.change:9.3%} "
                f"{errors.mean_kl_divergence:9.5f} {errors.top1_agreement:7.2%}"
            )
        else:
            click.echo(f"  {text.num_windows} windows are too few for a standard error")
        if text.left_out_tokens:
            click.echo(f"  {text.left_out_tokens} tokens of the text were left out")
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
    if result.precision == Precision.INT4_WO.algo:
        click.echo("quantize --mixed finds which of them are worth 8 bits; --compensate errs less")
