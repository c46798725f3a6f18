"""`nemotrt compare`: parse, call, print."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotrt.commandline.kinds import ABOVE_0, PATH
from nemotrt.commandline.shared import config_option, force_option, json_option, output_option
from nemotrt.errors import ConfigError
from nemotrt.files.writing import check_file

if TYPE_CHECKING:
    from nemotrt.profiles.verdict.judge import Verdict


@click.command()
@click.argument("candidate", type=PATH)
@click.argument("baseline", type=PATH)
@click.option(
    "--target",
    type=ABOVE_0,
    default=1.0,
    show_default=True,
    help="The claimed ratio of candidate to baseline.",
)
@click.option(
    "--at-given-concurrency",
    is_flag=True,
    help="Compare runs at the concurrency that they have, not each side's fastest.",
)
@click.option("--gate", is_flag=True, help="Exit with code 1 unless the outcome is 'met'.")
@output_option("Also write a page with both runs' curves.")
@force_option
@json_option
@config_option
@click.pass_context
def compare(
    ctx: click.Context,
    /,
    candidate: Path,
    baseline: Path,
    target: float,
    at_given_concurrency: bool,
    gate: bool,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Judge whether CANDIDATE has TARGET times the throughput of BASELINE.

    Each is the folder of a run, or of a sweep, of which the fastest run counts. For a regression
    test compare a new run with an old one: --target 0.95 --gate --at-given-concurrency. With one
    run per side a ratio within 10 % of the target is undecided: repeat both (--repeat 3).
    """
    from nemotrt.profiles.runs.run_folder import read_runs
    from nemotrt.profiles.verdict.judge import Outcome, judge
    from nemotrt.profiles.verdict.page import write_verdict
    from nemotrt.profiles.verdict.records import check_records, shared_runs

    if output is not None:
        check_file(output, force=force)
    ours, theirs = read_runs(candidate), read_runs(baseline)
    verdict = judge(ours, theirs, target, is_given_concurrency=at_given_concurrency)
    if verdict.outcome is not Outcome.NOT_COMPARABLE:
        check_records(ours, theirs)
    if shared := shared_runs(ours, theirs):
        same = f"candidate and baseline share a run, started at {shared[0]}"
        if gate:
            raise ConfigError(f"{same}: that is no test. Give --gate a new run and an old one.")
        verdict = replace(verdict, caveats=(*verdict.caveats, f"{same}: that is no difference."))
    if output is not None:
        write_verdict(verdict, ours, theirs, output)
    if as_json:
        click.echo(json.dumps(_as_json(verdict), allow_nan=False))
    else:
        _print(verdict)
    if gate and verdict.outcome != "met":
        ctx.exit(1)


def _print(verdict: "Verdict") -> None:
    """Print the sentence, the metrics side by side, and the caveats."""
    click.echo(verdict.sentence)
    for side, name in zip(("candidate", "baseline"), verdict.names, strict=True):
        click.echo(f"{side}: {name}")
    if verdict.predicted_ratio is not None:
        click.echo(f"The planner expected {verdict.predicted_ratio:.2f} (a prediction).")
    click.echo(f"{'metric':18}{'unit':>10}{'candidate':>12}{'baseline':>12}{'ratio':>8}")
    for change in verdict.changes:
        click.echo(
            f"{change.name:18}{change.unit:>10}{change.candidate:>12.4g}{change.baseline:>12.4g}"
            f"{change.ratio:>8.3f}"
        )
    for caveat in verdict.caveats:
        click.echo(f"note: {caveat}")


def _as_json(verdict: "Verdict") -> dict[str, object]:
    """Return the verdict without the runs' samples."""
    return {
        "schema_version": 1,
        "outcome": verdict.outcome,
        "target": verdict.target,
        "sentence": verdict.sentence,
        "candidate": verdict.names[0],
        "baseline": verdict.names[1],
        "differences": verdict.differences,
        "ratio": asdict(verdict.ratio) if verdict.ratio else None,
        "predicted_ratio": verdict.predicted_ratio,
        "reasons": verdict.reasons,
        "caveats": verdict.caveats,
        "changes": [asdict(change) | {"ratio": change.ratio} for change in verdict.changes],
    }
