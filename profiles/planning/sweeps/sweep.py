"""Plans over GPUs x precisions x lengths, as rows and as heat maps."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

from nemotrt.charts.spec import HeatMap
from nemotrt.engines.model.numerics import CHOSEN, Precision
from nemotrt.errors import NemotrtError
from nemotrt.profiles.hardware.gpu_profile import GpuProfile, load_gpu
from nemotrt.profiles.planning.answers.comparison import compare
from nemotrt.profiles.planning.answers.notes import contradictions
from nemotrt.profiles.planning.answers.options import (
    THIS_MACHINE,
    DeploymentOptions,
    deploy,
    resolve_gpu,
)
from nemotrt.profiles.planning.answers.plan import make_plan
from nemotrt.profiles.planning.cpu.this_machine import cpu_precisions
from nemotrt.profiles.planning.sources.known_models import load_source


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One combination; figures are None where `problem` says why there is no plan."""

    model: str
    gpu: str
    precision: str
    isl: int
    osl: int
    max_batch_size: int | None = None
    limited_by: str | None = None
    tokens_per_s_low: float | None = None
    tokens_per_s: float | None = None
    tokens_per_s_high: float | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    max_seq_len_at_batch_1: int | None = None
    joules_per_token: float | None = None
    ratio: float | None = None
    problem: str = ""
    note: str = ""  # where a row is not of what a checkpoint stores


def sweep(
    options: DeploymentOptions,
    gpus: Sequence[str],
    precisions: Sequence[Precision],
    lengths: Sequence[tuple[int, int]],
    baseline: str | None = None,
) -> Iterator[SweepRow]:
    """Yield a row for every combination; what cannot run is a row with its problem.

    Without `precisions` a quantized checkpoint is planned as it is, any other model in each
    precision that the GPUs have; so is a baseline.

    Raises:
        ConfigError: a name is unknown.
    """
    for name in (options.model, baseline):
        if name is not None:
            load_source(name)
    is_chosen = bool(precisions)
    own = load_source(options.model).quantization
    planned: list[Precision] = [*precisions]
    if not planned:
        planned = [own.precision] if own else [*default_precisions(gpus)]
    for gpu in gpus:
        for precision in planned:
            one = options.at(gpu=gpu, precision=precision)
            # A CPU is measured for each precision, and refuses some.
            profile = None if gpu == THIS_MACHINE else resolve_gpu(one)
            for isl, osl in lengths:
                at = one.at(isl=isl, osl=osl)
                other = _baseline(at, baseline, is_chosen) if baseline is not None else None
                yield _row(at, profile, other)


def default_precisions(gpus: Sequence[str]) -> list[Precision]:
    """Return the precisions that at least one of the GPUs has a rate for."""
    if THIS_MACHINE in gpus:
        return list(cpu_precisions())
    rates = {rate for gpu in gpus for rate in load_gpu(gpu).datasheet.tflops}
    return [item for item in CHOSEN if item.arithmetic in rates]


def _baseline(options: DeploymentOptions, name: str, is_chosen: bool) -> DeploymentOptions:
    """Return the baseline's options: in the row's precision, unless it has one and none is given.

    A float baseline of a quantized checkpoint is planned in 16 bits, as it is stored.
    """
    quantized = [load_source(each).quantization for each in (options.model, name)]
    is_own = not is_chosen and any(quantized)
    return options.at(model=name, **({"precision": None} if is_own else {}))


def _row(
    options: DeploymentOptions, gpu: GpuProfile | None, baseline: DeploymentOptions | None
) -> SweepRow:
    empty = SweepRow(options.model, options.gpu, str(options.precision), options.isl, options.osl)
    try:
        deployment = deploy(options, gpu)
        plan, notes = make_plan(deployment), [*contradictions(deployment)]
        if baseline is not None:
            other = deploy(baseline, deployment.gpu)
            plan = compare(deployment, plan, other)
            notes += contradictions(other)
    except NemotrtError as error:
        return replace(empty, problem=error.message)
    return replace(
        empty,
        max_batch_size=plan.max_batch_size,
        limited_by=plan.limited_by,
        tokens_per_s_low=plan.tokens_per_s.low,
        tokens_per_s=plan.tokens_per_s.best,
        tokens_per_s_high=plan.tokens_per_s.high,
        ttft_ms=plan.ttft_ms,
        tpot_ms=plan.tpot_ms,
        max_seq_len_at_batch_1=plan.max_seq_len_at_batch_1,
        joules_per_token=plan.joules_per_token.best if plan.joules_per_token else None,
        ratio=plan.ratio.best if plan.ratio else None,
        note="; ".join(notes),
    )


def to_csv(rows: Sequence[SweepRow]) -> str:
    """Return the rows as CSV with a header; numbers with six figures."""
    out = io.StringIO()
    names = [field.name for field in fields(SweepRow)]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = [getattr(row, name) for name in names]
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])
    return out.getvalue()


def heat_maps(rows: Sequence[SweepRow]) -> Iterator[HeatMap]:
    """Yield a map of throughput for each length, and of the ratio where there is a baseline."""
    for isl, osl in dict.fromkeys((row.isl, row.osl) for row in rows):
        here = [row for row in rows if (row.isl, row.osl) == (isl, osl)]
        yield _map(f"Tokens/s, {isl} in / {osl} out", here, "tokens_per_s")
        if any(row.ratio is not None for row in here):
            yield _map(f"Ratio to the baseline, {isl} in / {osl} out", here, "ratio")


def _map(title: str, rows: Sequence[SweepRow], name: str) -> HeatMap:
    gpus = tuple(dict.fromkeys(row.gpu for row in rows))
    precisions = tuple(dict.fromkeys(row.precision for row in rows))
    found = {(row.gpu, row.precision): getattr(row, name) for row in rows}
    values = tuple(tuple(found.get((gpu, p)) for p in precisions) for gpu in gpus)
    return HeatMap(title, precisions, gpus, values)
