"""`nemotrt profile miniature`: parse, call, print."""

import json
import signal
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nemotrt.commandline.kinds import COUNT
from nemotrt.commandline.shared import (
    config_option,
    dry_run_option,
    force_option,
    json_option,
    output_option,
    quiet_option,
)
from nemotrt.profiles.hardware.on_busy import OnBusy, on_busy_option

if TYPE_CHECKING:
    from nemotrt.profiles.miniature.measurement import Miniature


@click.command()
@output_option("Folder of the results.", default=Path("miniature"))
@click.option(
    "--isl", type=click.IntRange(8), default=512, show_default=True, help="Tokens of a prompt."
)
@click.option(
    "--osl",
    type=click.IntRange(2),
    help="Tokens of an answer.  [default: twice the isl, as the claim]",
)
@click.option(
    "--requests-per-user",
    type=click.IntRange(2),
    default=8,
    show_default=True,
    help="Measured requests of each user.",
)
@click.option("--threads", type=COUNT, help="CPU threads.  [default: all]")
@on_busy_option
@force_option
@dry_run_option
@json_option
@quiet_option
@config_option
def miniature(
    output: Path,
    isl: int,
    osl: int | None,
    requests_per_user: int,
    threads: int | None,
    on_busy: OnBusy,
    force: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure the 6x claim in miniature, on this machine's CPU, in minutes.

    Two models of equal size in the real pair's proportions share a memory budget scaled from the
    A10G's. It reports what comes out, and what the planner expected of this machine. Ended early,
    it leaves the runs so far.
    """
    from nemotrt.profiles.miniature.measurement import measure_miniature
    from nemotrt.profiles.reports.comparison import write_comparison
    from nemotrt.profiles.runs.progress import live_progress
    from nemotrt.profiles.runs.run_folder import REPORT_FILE, check_folder, write_folder

    for name in ("hybrid", "baseline"):
        check_folder(output / name, force=force)
    if dry_run:
        click.echo(
            f"would measure two models, {isl} in and {osl or 2 * isl} out, into {output}", err=True
        )
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was measured is written
    with (
        tempfile.TemporaryDirectory(prefix="nemotrt-") as scratch,
        live_progress(quiet=quiet or as_json) as show,
    ):
        found = measure_miniature(
            Path(scratch),
            isl=isl,
            osl=osl or 2 * isl,
            requests_per_user=requests_per_user,
            num_threads=threads,
            on_progress=show,
            on_busy=on_busy,
            on_result=lambda name, result: write_folder(result, output / name, force=force),
        )
    write_comparison(found.results, output / REPORT_FILE, verdict=" ".join(_sentences(found)))
    if as_json:
        click.echo(json.dumps(_as_json(found), allow_nan=False))
    elif not quiet:
        for sentence in _sentences(found):
            click.echo(sentence)


def _sentences(found: "Miniature") -> list[str]:
    """Return what was measured, with how much memory, and what was predicted."""
    budget = found.budget
    hybrid, baseline = found.results
    lines = [
        f"In miniature: {found.verdict.sentence}",
        f"{found.num_parameters[0] / 1e6:.1f} and {found.num_parameters[1] / 1e6:.1f} million "
        f"parameters on the {hybrid.target['backend']} engine, {found.isl} tokens in, "
        f"{found.osl} out; {budget.cache_bytes / 2**20:.1f} MiB hold "
        f"{budget.hybrid_batch_size} sequences of the hybrid and {budget.baseline_batch_size} of "
        "the baseline.",
    ]
    lines += [use.text for result in found.results if (use := result.machine_use) and use.text]
    if found.verdict.predicted_ratio is None or found.verdict.ratio is None:
        return [*lines, *(note for result in found.results for note in result.notes)]
    off = found.verdict.predicted_ratio / found.verdict.ratio.best - 1
    rates = [
        f"{result.prediction.tokens_per_s:.0f} predicted, {result.metric('tokens_per_s'):.0f} "
        "measured"
        for result in (hybrid, baseline)
        if result.prediction is not None
    ]
    lines.append(
        f"The planner predicted a ratio of {found.verdict.predicted_ratio:.2f} for this machine, "
        f"{off:+.0%} off (tokens/s: hybrid {rates[0]}; baseline {rates[1]})."
    )
    lines.append(_why(found))
    return lines


def _why(found: "Miniature") -> str:
    """Return how the step grows with the sequences, by the planner."""
    plans = [result.prediction for result in found.results]
    assert all(plans)  # the caller looked
    ours, theirs = (plan.decode_step_ms["total"] for plan in plans if plan is not None)
    names = [plan.bound_by for plan in plans if plan is not None]
    batches = [plan.batch_size for plan in plans if plan is not None]
    return (
        f"Why, by the planner: {batches[0]} sequences against {batches[1]} would give "
        f"{batches[0] / batches[1]:.0f} times, if a step took as long; here it takes {ours:.1f} ms "
        f"(mostly {names[0]}) against {theirs:.1f} ms (mostly {names[1]}): many rows are bound by "
        "a CPU's arithmetic, where a GPU waits for the weights either way."
    )


def _as_json(found: "Miniature") -> dict[str, Any]:
    """Return the figures without samples."""
    return {
        "schema_version": 1,
        "isl": found.isl,
        "osl": found.osl,
        "num_parameters": found.num_parameters,
        "backend": found.results[0].target["backend"],
        "budget": asdict(found.budget)
        | {
            "hybrid_batch_size": found.budget.hybrid_batch_size,
            "baseline_batch_size": found.budget.baseline_batch_size,
        },
        "outcome": found.verdict.outcome,
        "ratio": asdict(found.verdict.ratio) if found.verdict.ratio else None,
        "predicted_ratio": found.verdict.predicted_ratio,
        "tokens_per_s": [result.metrics["tokens_per_s"].value for result in found.results],
        "predictions": [
            result.prediction.model_dump() if result.prediction else None
            for result in found.results
        ],
    }
