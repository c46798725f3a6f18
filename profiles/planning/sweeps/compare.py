"""Machines side by side: what each gives within a latency target, and what a token costs there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from nemotrt.charts.spec import Bars
from nemotrt.errors import ConfigError, NemotrtError
from nemotrt.profiles.hardware.gpu_profile import load_gpu
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.options import THIS_MACHINE, DeploymentOptions
from nemotrt.profiles.planning.answers.plan import Range, make_plan, price_of
from nemotrt.profiles.planning.answers.search import LatencyTarget, PrecisionChoice, best_under


@dataclass(frozen=True, slots=True)
class Offer:
    """What one machine gives, all of its engines together; None where `problem` says why not.

    `sequences` run at once within the target; `usd_per_hour` is of the machine, None where nobody
    gave a price.
    """

    machine: str
    gpu: str
    num_engines: int = 0
    tp: int = 1
    precision: str = ""
    sequences: int | None = None
    tokens_per_s: Range | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    usd_per_hour: float | None = None
    usd_per_million_tokens: Range | None = None
    track_record: str = ""
    problem: str = ""


def offers(
    options: DeploymentOptions,
    names: Sequence[str],
    target: LatencyTarget,
    prices: Mapping[str, float],
    precisions: PrecisionChoice,
) -> list[Offer]:
    """Return what each machine gives: the cheapest token first, then what has no price.

    Args:
        options: all but the GPU.
        names: of GPUs, cloud instances or profiles.
        target: within which each machine runs as many sequences as it can.
        prices: of machines by the names given, in USD an hour; a profile may have its own.
        precisions: among which each machine has the fastest within the target.

    Raises:
        ConfigError: a price is of no machine that is compared, a machine's name or file can't be
            read, or the model is not known.
    """
    for name in names:
        if name != THIS_MACHINE:
            load_gpu(name)  # a wrong name is no machine that runs nothing
    if strange := set(prices) - set(names):
        raise ConfigError(
            f"--price {', '.join(sorted(strange))}: not among the machines that are compared: "
            f"{', '.join(names)}."
        )
    found = [_offer(options.at(gpu=name), target, prices.get(name), precisions) for name in names]
    return sorted(found, key=_rank)


def _rank(offer: Offer) -> tuple[int, float]:
    """Return the cheapest first, then the fastest, then what can't run."""
    if offer.tokens_per_s is None:
        return 2, 0.0
    if offer.usd_per_million_tokens is None:
        return 1, -offer.tokens_per_s.best
    return 0, offer.usd_per_million_tokens.best


def _offer(
    options: DeploymentOptions,
    target: LatencyTarget,
    price: float | None,
    precisions: PrecisionChoice,
) -> Offer:
    """Return one machine's offer, or why it has none."""
    empty = Offer(options.gpu, "", tp=options.tp, usd_per_hour=price)
    try:
        every = precisions.deployments(options)
        empty = replace(empty, gpu=every[0].gpu.name)
        deployment, batch = best_under(every, target)
        return _made(empty, deployment, batch)
    except NemotrtError as error:
        return replace(empty, problem=error.message)


def _made(empty: Offer, deployment: Deployment, batch: int) -> Offer:
    """Return the offer of a machine that runs `batch` sequences in each engine."""
    count, own = deployment.num_engines, price_of(deployment)
    hourly = empty.usd_per_hour or (own * count if own else None)
    plan = make_plan(deployment, batch, batch, hourly / count if hourly else None)
    rate = plan.tokens_per_s
    return replace(
        empty,
        num_engines=count,
        precision=plan.precision.value,
        sequences=count * batch,
        tokens_per_s=Range(*(count * end for end in (rate.low, rate.best, rate.high))),
        ttft_ms=plan.ttft_ms,
        tpot_ms=plan.tpot_ms,
        usd_per_hour=hourly,
        usd_per_million_tokens=plan.usd_per_million_tokens,
        track_record=plan.track_record[0],
    )


def picture(found: Sequence[Offer]) -> Bars:
    """Return the machines as bars: by price where one is known, else by throughput."""
    ran = [offer for offer in found if offer.tokens_per_s]
    priced = [offer for offer in ran if offer.usd_per_million_tokens]
    shown = priced or ran
    is_priced = bool(priced)
    values = tuple(_bar(offer, is_priced=is_priced) for offer in shown)
    return Bars(
        "A million generated tokens" if is_priced else "Throughput",
        "USD" if is_priced else "tokens/s",
        tuple(offer.machine for offer in shown),
        ((("price" if is_priced else "tokens/s"), values),),
        texts=tuple(_text(offer) for offer in shown),
    )


def _bar(offer: Offer, *, is_priced: bool) -> float:
    value = offer.usd_per_million_tokens if is_priced else offer.tokens_per_s
    return value.best if value else 0.0


def _text(offer: Offer) -> str:
    rate = f"{offer.tokens_per_s.best:.0f} tokens/s" if offer.tokens_per_s else ""
    return f"{offer.sequences} sequences, {rate}"


def notes(found: Sequence[Offer]) -> Iterator[str]:
    """Yield what must be known beside the table, a line each."""
    for offer in found:
        if offer.problem:
            yield f"{offer.machine}: {offer.problem}"
    if unpriced := [o.machine for o in found if o.tokens_per_s and o.usd_per_hour is None]:
        yield f"No price was given for {', '.join(unpriced)} (--price NAME=USD)."
    records = dict.fromkeys(offer.track_record for offer in found if offer.track_record)
    if records:
        yield f"Errors on measured rows: {'; '.join(records)}."
