"""`nemotrt plan validate`: replays measured rows and prints the errors by figure and group."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotrt.commandline.kinds import READABLE
from nemotrt.commandline.shared import json_option

if TYPE_CHECKING:
    from rich.table import Table

    from nemotrt.profiles.planning.measured.validation import LeftOut, Outcome, Score, Validation


@click.command("validate")
@click.option(
    "--rows", type=READABLE, help="CSV like the collection's. [default: the shipped rows]"
)
@click.option("--each", "is_each", is_flag=True, help="Print every row, and those left out.")
@json_option
def validate_command(rows: Path | None, is_each: bool, as_json: bool) -> None:
    """Compare each predicted figure with measured rows; rows that shaped a constant stand apart."""
    from nemotrt.profiles.planning.measured.rows import read_rows
    from nemotrt.profiles.planning.measured.validation import LESS_IMPOSSIBLE, left_out, validate

    found = validate(read_rows(rows))
    if as_json:
        raw = {"schema_version": 1, **_to_dict(found)}
        if rows is None:  # of the shipped ones
            raw["left_out"] = [asdict(one) for one in left_out()]
        click.echo(json.dumps(raw, allow_nan=False, indent=2))
        return
    from nemotrt.profiles.planning.output.plan_table import print_tables

    tables = [
        _scores("Score: test rows", found.totals),
        _scores("Test rows by GPU", found.by_gpu),
        _scores(f"Test rows by engine and GPU, {LESS_IMPOSSIBLE}", found.by_engine),
        _scores("Test rows by source", found.by_source),
        _scores("By group", found.groups),
    ]
    if rows is None:
        tables.append(_left_out_sources(left_out()))
    if is_each:
        tables += [_rows(found), _left_out(found)]
    print_tables([*tables, f"{len(found.unscorable)} rows cannot be scored (--each lists them)."])


def _scores(title: str, scores: tuple["Score", ...]) -> "Table":
    from rich.table import Table

    table = Table("group", "figure", "rows", "MAPE", "bias", "in the band", title=title)
    for score in scores:
        held = "" if score.coverage is None else f"{score.coverage:.0%}"
        cells = (str(score.num_rows), f"{score.mape:.1%}", f"{score.bias:+.1%}", held)
        table.add_row(" | ".join(score.name), score.figure.value, *cells)
    return table


def _left_out_sources(found: "Sequence[LeftOut]") -> "Table":
    from rich.table import Table

    table = Table(
        "source", "rows", "never seen", "seen", title="tokens/s of sources left out of a fit"
    )
    for one in found:
        table.add_row(
            one.source,
            str(one.num_rows),
            f"{one.mape:.1%} ({one.bias:+.1%})",
            f"{one.seen_mape:.1%} ({one.seen_bias:+.1%})",
        )
    return table


def _rows(found: "Validation") -> "Table":
    from rich.table import Table

    from nemotrt.profiles.planning.measured.validation import Figure

    table = Table("row", "role", "figure", "measured", "predicted", "error", title="Every row")
    for one in found.outcomes:
        mark = " (faster than the datasheet allows)" if one.is_beyond_floor else ""
        mark += " (waited longer than a harder load)" if one.is_contradicting else ""
        for figure in Figure:
            if pair := one.pair(figure):
                measured, best = pair[0], pair[1].best
                error = f"{best / measured - 1:+.1%}"
                cells = (figure.value, f"{measured:.4g}", f"{best:.4g}", error)
                table.add_row(one.row.name + mark, one.role, *cells)
    return table


def _left_out(found: "Validation") -> "Table":
    from rich.table import Table

    table = Table("row", "why", title="Not scored")
    for name, reason in found.unscorable:
        table.add_row(name, reason)
    return table


def _to_dict(found: "Validation") -> dict[str, object]:
    def scores(every: "Sequence[Score]") -> list[dict[str, object]]:
        return [asdict(score) for score in every]

    return {
        "totals": scores(found.totals),
        "by_gpu": scores(found.by_gpu),
        "by_engine": scores(found.by_engine),
        "by_source": scores(found.by_source),
        "groups": scores(found.groups),
        "rows": [_row_dict(one) for one in found.outcomes],
        "unscorable": [{"name": name, "reason": reason} for name, reason in found.unscorable],
    }


def _row_dict(one: "Outcome") -> dict[str, object]:
    from nemotrt.profiles.planning.measured.validation import Figure

    pairs = {figure.value: pair for figure in Figure if (pair := one.pair(figure))}
    return {
        "name": one.row.name,
        "role": one.role,
        "measured_tokens_per_s": one.row.tokens_per_s,
        "predicted_tokens_per_s": one.tokens_per_s,
        "error": one.error,
        "is_beyond_floor": one.is_beyond_floor,
        "is_contradicting": one.is_contradicting,
        "figures": {
            name: {"measured": measured, "predicted": asdict(predicted)}
            for name, (measured, predicted) in pairs.items()
        },
    }
