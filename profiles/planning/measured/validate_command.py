"""`nemotrt plan validate`: replays measured rows and prints the errors by group."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotrt.commandline.kinds import READABLE
from nemotrt.commandline.shared import json_option

if TYPE_CHECKING:
    from rich.table import Table

    from nemotrt.profiles.planning.measured.validation import Score, Validation


@click.command("validate")
@click.option(
    "--rows", type=READABLE, help="CSV like the collection's. [default: the shipped rows]"
)
@click.option("--each", "is_each", is_flag=True, help="Print every row, and those left out.")
@json_option
def validate_command(rows: Path | None, is_each: bool, as_json: bool) -> None:
    """Compare predictions with measured throughput; rows that shaped a constant stand apart."""
    from nemotrt.profiles.planning.measured.rows import read_rows
    from nemotrt.profiles.planning.measured.validation import validate

    found = validate(read_rows(rows))
    if as_json:
        click.echo(json.dumps({"schema_version": 1, **_to_dict(found)}, allow_nan=False, indent=2))
        return
    from nemotrt.profiles.planning.output.plan_table import print_tables

    tables = [_scores("Score: test rows", found.totals), _scores("By group", found.groups)]
    if is_each:
        tables += [_rows(found), _left_out(found)]
    print_tables([*tables, f"{len(found.unscorable)} rows cannot be scored (--each lists them)."])


def _scores(title: str, scores: tuple["Score", ...]) -> "Table":
    from rich.table import Table

    table = Table("group", "rows", "MAPE", "bias", title=title)
    for score in scores:
        cells = (str(score.num_rows), f"{score.mape:.1%}", f"{score.bias:+.1%}")
        table.add_row(" | ".join(score.name), *cells)
    return table


def _rows(found: "Validation") -> "Table":
    from rich.table import Table

    table = Table("row", "role", "measured", "predicted", "error", title="Every row")
    for one in found.outcomes:
        mark = " (faster than the datasheet allows)" if one.is_beyond_floor else ""
        table.add_row(
            one.row.name + mark,
            one.role,
            f"{one.row.tokens_per_s:.0f}",
            f"{one.tokens_per_s:.0f}",
            f"{one.error:+.1%}",
        )
    return table


def _left_out(found: "Validation") -> "Table":
    from rich.table import Table

    table = Table("row", "why", title="Not scored")
    for name, reason in found.unscorable:
        table.add_row(name, reason)
    return table


def _to_dict(found: "Validation") -> dict[str, object]:
    return {
        "totals": [asdict(score) for score in found.totals],
        "groups": [asdict(score) for score in found.groups],
        "rows": [
            {
                "name": one.row.name,
                "role": one.role,
                "measured_tokens_per_s": one.row.tokens_per_s,
                "predicted_tokens_per_s": one.tokens_per_s,
                "error": one.error,
                "is_beyond_floor": one.is_beyond_floor,
            }
            for one in found.outcomes
        ],
        "unscorable": [{"name": name, "reason": reason} for name, reason in found.unscorable],
    }
