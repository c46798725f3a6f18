"""`nemotrt plan compare`: GPUs and cloud instances by what a million tokens costs."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotrt.commandline.kinds import FILE
from nemotrt.commandline.options import options_of
from nemotrt.commandline.shared import (
    config_option,
    dry_run_option,
    force_option,
    json_option,
    quiet_option,
)
from nemotrt.engines.checkpoint.hub.parameter import MODEL, offline_option
from nemotrt.errors import ConfigError, NoFeasiblePlanError
from nemotrt.profiles.planning.answers.options import DeploymentOptions
from nemotrt.profiles.planning.answers.search import LatencyTarget, PrecisionChoice
from nemotrt.profiles.planning.sources.known_models import load_source
from nemotrt.profiles.planning.sweeps.compare import Offer, notes, offers, picture

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA_VERSION = 1


@click.command("compare")
@click.argument("model", type=MODEL)
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    required=True,
    metavar="NAME|FILE",
    help="GPU, cloud instance or profile file; repeat for each.",
)
@click.option(
    "--price",
    "prices",
    multiple=True,
    metavar="NAME=USD",
    help="Price of a machine an hour, by its name in --gpu; repeat for each.",
)
@options_of(PrecisionChoice)
@options_of(DeploymentOptions, without=("gpu", "precision"))
@options_of(LatencyTarget)
@click.option("--plot", type=FILE, help="Write one picture to an .html or .png file.")
@json_option
@quiet_option
@dry_run_option
@force_option
@offline_option
@config_option
def compare_command(
    gpus: tuple[str, ...],
    prices: tuple[str, ...],
    precision_choice: PrecisionChoice,
    deployment_options: DeploymentOptions,
    latency_target: LatencyTarget,
    plot: Path | None,
    as_json: bool,
    quiet: bool,
    dry_run: bool,
    force: bool,
) -> None:
    """Compare machines for MODEL by tokens/s, sequences and price within a latency target."""
    from nemotrt.charts.page import check_plot_path, write_plot
    from nemotrt.charts.spec import About

    if plot:
        check_plot_path(plot, force or dry_run)
    options = deployment_options.at(precision=precision_choice.precision)
    load_source(options.model)  # whose fault is no machine's
    given = dict(_price(text) for text in prices)
    found = offers(options, list(dict.fromkeys(gpus)), latency_target, given, precision_choice)
    said = list(notes(found))
    if as_json:
        raw = {"schema_version": SCHEMA_VERSION, "model": options.model, "isl": options.isl,
               "osl": options.osl, "target": asdict(latency_target),
               "machines": [asdict(offer) for offer in found]}  # fmt: skip
        click.echo(json.dumps(raw, allow_nan=False, indent=2))
    else:
        from nemotrt.profiles.planning.output.plan_table import print_tables

        print_tables([_table(options, latency_target, found), *said])
    if all(offer.problem for offer in found):
        raise NoFeasiblePlanError(f"no machine can run it; the first: {found[0].problem}")
    if plot and not dry_run:
        title = f"{options.model}, {options.isl} in / {options.osl} out (predicted)"
        write_plot(plot, About(title, notes=tuple(said)), [picture(found)], force)
    if plot and not quiet:
        click.echo(f"{'would write' if dry_run else 'wrote'} {plot}", err=True)


def _price(text: str) -> tuple[str, float]:
    """Return the name and the price of "g5.2xlarge=1.21"."""
    name, _, price = text.rpartition("=")
    try:
        value = float(price)
    except ValueError:
        value = math.nan
    if not name or not 0 < value < math.inf:
        raise ConfigError(f"--price {text!r} is not NAME=USD, for example g5.2xlarge=1.21.")
    return name, value


def _table(options: DeploymentOptions, target: LatencyTarget, found: Sequence[Offer]) -> "Table":
    """Return the machines, the cheapest token first."""
    from rich.table import Table

    limits = {"first token": target.ttft_ms, "token": target.tpot_ms}
    within = ", ".join(f"{what} within {ms:g} ms" for what, ms in limits.items() if ms is not None)
    title = f"{options.model}, {options.isl} in / {options.osl} out"
    table = Table(title=f"{title}{f', {within}' if within else ''} (predicted)")
    heads = ("machine", "engines", "precision", "sequences", "tokens/s", "first token", "token",
             "USD/h", "USD per 10^6 tokens")  # fmt: skip
    for head in heads:
        table.add_column(head, justify="left" if head == "machine" else "right")
    for offer in found:
        table.add_row(*_cells(offer))
    return table


def _cells(offer: Offer) -> list[str]:
    if offer.tokens_per_s is None:
        return [offer.machine, *[""] * 3, "none", *[""] * 4]
    gpus = f"{offer.num_engines} x {offer.gpu}" + (f" x {offer.tp}" if offer.tp > 1 else "")
    price, hourly = offer.usd_per_million_tokens, offer.usd_per_hour
    rate = offer.tokens_per_s
    return [
        offer.machine,
        gpus,
        offer.precision,
        str(offer.sequences),
        f"{rate.best:.0f} ({rate.low:.0f} to {rate.high:.0f})",
        f"{offer.ttft_ms:.0f} ms",
        f"{offer.tpot_ms:.1f} ms",
        f"{hourly:.2f}" if hourly else "",
        f"{price.best:.3g} ({price.low:.3g} to {price.high:.3g})" if price else "",
    ]
