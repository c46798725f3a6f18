"""How far the planner is from measured rows, by group, calibration apart from test."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nemotrt.engines.model.numerics import Precision
from nemotrt.profiles.hardware.gpu_profile import load_gpu
from nemotrt.profiles.planning.measured.prediction import predict
from nemotrt.profiles.planning.measured.rows import MeasuredRow, why_unscorable
from nemotrt.profiles.planning.time.roofline import Scenario


@dataclass(frozen=True, slots=True)
class Outcome:
    """A measured row beside its prediction; `floor` is what the datasheet alone allows."""

    row: MeasuredRow
    tokens_per_s: float
    tpot_ms: float
    floor_tokens_per_s: float

    @property
    def error(self) -> float:
        """Predicted over measured throughput, less one."""
        return self.tokens_per_s / self.row.tokens_per_s - 1

    @property
    def is_beyond_floor(self) -> bool:
        """Whether the row is faster than its GPU's datasheet allows at its stated load."""
        return self.row.tokens_per_s > self.floor_tokens_per_s

    @property
    def group(self) -> tuple[str, ...]:
        """Where the row is scored: role, load, precision, engine, GPU."""
        return (self.role, self.load, self.precision, self.row.engine, self.row.gpu)

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
    """Mean errors over a group."""

    name: tuple[str, ...]
    num_rows: int
    mape: float
    bias: float


@dataclass(frozen=True, slots=True)
class Validation:
    """All outcomes, the scores by group, and the rows left out with their reasons."""

    outcomes: tuple[Outcome, ...]
    groups: tuple[Score, ...]
    totals: tuple[Score, ...]
    unscorable: tuple[tuple[str, str], ...]


def validate(rows: Iterable[MeasuredRow]) -> Validation:
    """Return the planner's errors over `rows`; nothing is fitted here."""
    outcomes, unscorable = [], []
    for row in rows:
        reason = why_unscorable(row)
        if reason:
            unscorable.append((row.name, reason))
            continue
        outcomes.append(outcome(row))
    tests = [o for o in outcomes if o.role == "test"]
    totals = []
    for precision in ("bf16", "fp8"):
        stated = [o for o in tests if o.precision == precision and not o.row.is_max_load]
        totals += _scores([("test", "stated batch, all", precision)], [stated])
        possible = [o for o in stated if not o.is_beyond_floor]
        if len(possible) < len(stated):
            name = ("test", "stated batch, less rows faster than the datasheet allows", precision)
            totals += _scores([name], [possible])
        load = [o for o in tests if o.precision == precision and o.row.is_max_load]
        totals += _scores([("test", "max load, all", precision)], [load])
    names = sorted({o.group for o in outcomes})
    groups = _scores(names, [[o for o in outcomes if o.group == name] for name in names])
    return Validation(tuple(outcomes), tuple(groups), tuple(totals), tuple(unscorable))


def outcome(row: MeasuredRow) -> Outcome:
    """Return the prediction of one row by the shipped corrections, and its floor."""
    gpu = load_gpu(row.gpu)
    best, floor = predict(row, gpu), predict(row, gpu, Scenario.FLOOR)
    return Outcome(row, best.tokens_per_s, best.tpot_ms, floor.tokens_per_s)


def _scores(names: Sequence[tuple[str, ...]], groups: Sequence[Sequence[Outcome]]) -> list[Score]:
    """Return a score for each group that has rows."""
    return [
        Score(
            name,
            len(group),
            sum(abs(o.error) for o in group) / len(group),
            sum(o.error for o in group) / len(group),
        )
        for name, group in zip(names, groups, strict=True)
        if group
    ]
