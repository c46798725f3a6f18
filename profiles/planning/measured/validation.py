"""How far the planner is from measured rows, by figure and group, calibration apart from test."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib import resources

from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import NoFeasiblePlanError
from nemotrt.profiles.hardware.gpu_profile import load_gpu
from nemotrt.profiles.planning.answers.plan import Range, power_w, rate_of
from nemotrt.profiles.planning.measured.campaigns.harness import PLAIN
from nemotrt.profiles.planning.measured.contradictions import contradicting
from nemotrt.profiles.planning.measured.prediction import deployment_of, load_of
from nemotrt.profiles.planning.measured.rows import MeasuredRow, why_unscorable
from nemotrt.profiles.planning.time.play.closed_loop import SteadyState
from nemotrt.profiles.planning.time.roofline import Scenario

# Prompts were probably cached there, which no row states.
LESS_CONTRADICTING = "less rows that waited longer than a harder load of their campaign"
LESS_IMPOSSIBLE = "less campaigns with a row faster than the datasheet allows"


class Figure(StrEnum):
    """What a plan prints and a row may state."""

    TOKENS_PER_S = "tokens/s"
    TPOT = "tpot"
    TTFT = "ttft"  # the mean
    POWER = "power"
    JOULES = "joules/token"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A measured row beside its prediction; its floor is the datasheet's, of what it states."""

    row: MeasuredRow
    rate: Range
    state: SteadyState
    power_w: Range | None
    floor_tokens_per_s: float
    is_contradicting: bool = False  # an easier load than another that waited less

    @property
    def tokens_per_s(self) -> float:
        """The predicted throughput."""
        return self.rate.best

    @property
    def error(self) -> float:
        """Predicted over measured throughput, less one."""
        return self.tokens_per_s / self.row.tokens_per_s - 1

    def pair(self, figure: Figure) -> tuple[float, Range] | None:
        """Return what was measured and predicted of a figure, or None where either is missing."""
        row, state, watts = self.row, self.state, self.power_w
        measured: float | None
        predicted: Range | None
        match figure:
            case Figure.TOKENS_PER_S:
                measured, predicted = row.tokens_per_s, self.rate
            case Figure.TPOT:
                measured, predicted = row.itl_ms, _point(state.tpot_ms)
            case Figure.TTFT:
                waited_ms = row.harness.batch_wait_steps * state.tpot_ms
                measured, predicted = row.ttft_ms, _point(state.ttft_ms + waited_ms)
            case Figure.POWER:
                measured, predicted = row.power_w, watts
            case Figure.JOULES:
                measured = row.power_w / row.tokens_per_s if row.power_w else None
                best = self.rate.best
                predicted = watts and Range(
                    *(w / best for w in (watts.low, watts.best, watts.high))
                )
        return (measured, predicted) if measured and predicted and predicted.best else None

    @property
    def is_beyond_floor(self) -> bool:
        """Whether the row is faster than its GPU's datasheet allows at its stated load."""
        return self.row.tokens_per_s > self.floor_tokens_per_s

    @property
    def campaign(self) -> tuple[str, ...]:
        """The rows that were measured with one setup: where one is impossible, all are doubtful."""
        row = self.row
        return (row.source, row.engine, row.engine_version, self.precision)

    @property
    def group(self) -> tuple[str, ...]:
        """Where the row is scored: role, load, precision, engine and version, GPU, GPUs."""
        row = self.row
        engine = f"{row.engine} {row.engine_version}".strip()
        return (self.role, self.load, self.precision, engine, row.gpu, f"tp {row.tp}")

    @property
    def role(self) -> str:
        """Whether the row shaped a constant or judges them."""
        return self.row.role

    @property
    def load(self) -> str:
        """Whether the batch is the row's own or the planner's."""
        if self.row.is_max_load:
            return "max load"
        return "stated batch, prompt length assumed" if self.row.is_isl_assumed else "stated batch"

    @property
    def precision(self) -> str:
        """The limit that applies: bf16 (fp16) or fp8."""
        return "fp8" if self.row.precision is Precision.FP8 else "bf16"


@dataclass(frozen=True, slots=True)
class Score:
    """Mean errors of a figure over a group, and how many rows its band holds.

    `coverage` is None for a figure without a band.
    """

    name: tuple[str, ...]
    figure: Figure
    num_rows: int
    mape: float
    bias: float
    coverage: float | None


@dataclass(frozen=True, slots=True)
class Validation:
    """All outcomes, their scores by group, GPU, engine and source, and what was left out, why."""

    outcomes: tuple[Outcome, ...]
    groups: tuple[Score, ...]
    totals: tuple[Score, ...]
    by_gpu: tuple[Score, ...]
    by_engine: tuple[Score, ...]  # and GPU, less the campaigns with an impossible row
    by_source: tuple[Score, ...]
    unscorable: tuple[tuple[str, str], ...]


LEFT_OUT_FILE = resources.files("nemotrt.profiles.planning.measured") / "records/left_out.json"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The error on one source's rows, tokens/s, of a fit that never saw it, and of one that did."""

    source: str
    num_rows: int
    mape: float
    bias: float
    seen_mape: float
    seen_bias: float


def left_out() -> list[LeftOut]:
    """Return what `scripts/fit_planner.py --leave-out` found, a source each."""
    found = json.loads(LEFT_OUT_FILE.read_text(encoding="utf-8"))
    return [LeftOut(source=source, **one) for source, one in found.items()]


def validate(rows: Iterable[MeasuredRow]) -> Validation:
    """Return the planner's errors over `rows`; nothing is fitted here."""
    outcomes, unscorable = [], []
    rows = list(rows)
    doubtful = contradicting(rows)
    for row in rows:
        if reason := why_unscorable(row):
            unscorable.append((row.name, reason))
            continue
        try:
            outcomes.append(replace(outcome(row), is_contradicting=row.number in doubtful))
        except NoFeasiblePlanError as error:
            unscorable.append((row.name, f"it ran, but no plan exists: {error.message}"))
    tests = [o for o in outcomes if o.role == "test"]
    impossible = {o.campaign for o in outcomes if o.is_beyond_floor}
    possible = [o for o in tests if o.campaign not in impossible]
    return Validation(
        tuple(outcomes),
        tuple(_by(outcomes, lambda o: o.group)),
        tuple(_totals(tests, impossible)),
        tuple(_by(tests, lambda o: ("test", o.row.gpu))),
        tuple(_by(possible, lambda o: ("test", o.row.engine, o.row.gpu))),
        tuple(_by(tests, lambda o: ("test", o.row.source))),
        tuple(unscorable),
    )


def outcome(row: MeasuredRow) -> Outcome:
    """Return the prediction of one row by the shipped corrections, and its floor.

    Raises:
        NoFeasiblePlanError: not one sequence fits.
    """
    gpu = load_gpu(row.gpu)
    deployment = deployment_of(row, gpu)
    load = load_of(row, deployment)
    as_stated = deployment_of(replace(row, harness=PLAIN), gpu)
    return Outcome(
        row,
        rate_of(deployment, *load),
        deployment.steady_state(*load, Scenario.BEST),
        power_w(deployment, load[1]),
        as_stated.tokens_per_s(*load, Scenario.FLOOR),
    )


def _totals(tests: Sequence[Outcome], impossible: Collection[tuple[str, ...]]) -> Iterator[Score]:
    """Yield the scores that the targets are set for."""
    for precision in ("bf16", "fp8"):
        mine = [o for o in tests if o.precision == precision]
        stated = [o for o in mine if not o.row.is_max_load]
        yield from _scores(("test", "stated batch, all", precision), stated)
        possible = [o for o in stated if o.campaign not in impossible]
        if len(possible) < len(stated):
            name = ("test", f"stated batch, {LESS_IMPOSSIBLE}", precision)
            yield from _scores(name, possible)
        yield from _less_contradicting(precision, stated)
        load = [o for o in mine if o.row.is_max_load]
        yield from _scores(("test", "max load, all", precision), load)
    for tp in sorted({o.row.tp for o in tests}):
        mine = [o for o in tests if o.row.tp == tp and not o.row.is_max_load]
        yield from _scores(("test", "stated batch", f"tp {tp}"), mine)


def _less_contradicting(precision: str, stated: Sequence[Outcome]) -> Iterator[Score]:
    """Yield the score of times to the first token without rows that no scheduler could explain."""
    left = [o for o in stated if not o.is_contradicting]
    if len(left) < len(stated):
        name = ("test", f"stated batch, {LESS_CONTRADICTING}", precision)
        yield from (score for score in _scores(name, left) if score.figure is Figure.TTFT)


def _by(
    outcomes: Sequence[Outcome], group: Callable[[Outcome], tuple[str, ...]]
) -> Iterator[Score]:
    """Yield the scores of every figure of every group, in order."""
    for name in sorted({group(o) for o in outcomes}):
        yield from _scores(name, [o for o in outcomes if group(o) == name])


def _scores(name: tuple[str, ...], group: Sequence[Outcome]) -> Iterator[Score]:
    """Yield a score for each figure that rows of the group state."""
    for figure in Figure:
        pairs = [pair for o in group if (pair := o.pair(figure))]
        if not pairs:
            continue
        errors = [predicted.best / measured - 1 for measured, predicted in pairs]
        banded = [(m, p) for m, p in pairs if p.low < p.high]
        held = sum(p.low <= m <= p.high for m, p in banded)
        yield Score(
            name,
            figure,
            len(pairs),
            sum(map(abs, errors)) / len(pairs),
            sum(errors) / len(pairs),
            held / len(banded) if banded else None,
        )


def _point(value: float) -> Range:
    """Return a figure that a plan prints without a band."""
    return Range(value, value, value)
