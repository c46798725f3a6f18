"""The verdict on a claimed ratio: met, not met, undecided, or not comparable, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from nemotrt.errors import ConfigError
from nemotrt.profiles.runs.record.identity import differences, line_names
from nemotrt.profiles.runs.record.result import ProfileResult
from nemotrt.profiles.verdict.comparability import best_runs, caveats, obstacles
from nemotrt.profiles.verdict.ratio import Basis, Ratio, throughput_ratio

METRICS = (
    "tokens_per_s",
    "sessions_per_s",
    "ttft_ms",
    "tpot_ms",
    "e2e_latency_ms",
    "joules_per_token",
)


class Outcome(StrEnum):
    """What can be said of a claimed ratio."""

    MET = "met"  # the whole interval reaches the target
    NOT_MET = "not met"  # the whole interval stays below it
    UNDECIDED = "undecided"  # the target lies inside the interval
    NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True, slots=True)
class Change:
    """A metric of both runs; `ratio` is candidate over baseline."""

    name: str
    unit: str
    candidate: float
    baseline: float

    @property
    def ratio(self) -> float:
        """Candidate over baseline."""
        return self.candidate / self.baseline


@dataclass(frozen=True, slots=True)
class Verdict:
    """The whole judgement; `ratio` is None where no rate can be had.

    Of repeated runs, `candidate` and `baseline` are the first.
    """

    outcome: Outcome
    target: float
    ratio: Ratio | None
    reasons: tuple[str, ...]  # why not comparable
    caveats: tuple[str, ...]
    changes: tuple[Change, ...]
    candidate: ProfileResult
    baseline: ProfileResult

    @property
    def predicted_ratio(self) -> float | None:
        """What the planner expected, where both runs have its prediction (--predict)."""
        ours, theirs = self.candidate.prediction, self.baseline.prediction
        return ours.tokens_per_s / theirs.tokens_per_s if ours and theirs else None

    @property
    def names(self) -> tuple[str, str]:
        """Candidate and baseline by names that tell them apart, unless they are one engine."""
        candidate, baseline = line_names((self.candidate, self.baseline))
        return candidate, baseline

    @property
    def differences(self) -> dict[str, tuple[str, ...]]:
        """Each fact in which the two differ, with the candidate's and the baseline's value."""
        return differences((self.candidate, self.baseline))

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if self.ratio is None or self.outcome is Outcome.NOT_COMPARABLE:
            first, *others = self.reasons
            rest = (f" {reason[0].upper()}{reason[1:]}" for reason in others)
            return f"Not comparable: {first}{''.join(rest)}"
        ratio = self.ratio
        text = (
            f"{ratio.best:.2f} times the baseline's throughput ({ratio.text}); a ratio of "
            f"{self.target:g} is {self.outcome}."
        )
        if not ratio.is_distinguishable:
            text += " The two are not distinguishable."
        return text


def judge(
    candidates: Sequence[ProfileResult],
    baselines: Sequence[ProfileResult],
    target: float,
    *,
    is_given_concurrency: bool = False,
) -> Verdict:
    """Return the verdict on "candidate is `target` times as fast as baseline".

    Args:
        candidates: runs of a sweep over concurrency, or one run.
        baselines: the same for the other model.
        target: the claimed ratio of throughputs.
        is_given_concurrency: compare single runs as they are; otherwise each side must have been
            swept until more users brought nothing.
    """
    if target <= 0:
        raise ConfigError(f"--target must be above 0, got {target:g}.")
    (ours, is_ours_best), (theirs, is_theirs_best) = map(best_runs, (candidates, baselines))
    candidate, baseline = ours[0], theirs[0]
    found = [obstacle for a in ours for b in theirs for obstacle in obstacles(a, b)]
    reasons = list(dict.fromkeys(found))
    for name, runs in (("candidate", candidates), ("baseline", baselines)):
        if len(engines := dict.fromkeys(line_names(runs))) > 1:
            reasons.append(f"the {name}'s runs are of different things: {'; '.join(engines)}.")
    are_best = {"candidate": is_ours_best, "baseline": is_theirs_best}
    unshown = [name for name, is_shown in are_best.items() if not is_shown]
    if unshown and not is_given_concurrency:
        their, them = ("its", "it") if len(unshown) == 1 else ("their", "them")
        reasons.append(
            f"nothing shows that the {' and the '.join(unshown)} ran at {their} best concurrency: "
            f"profile {them} with --search, or give --at-given-concurrency."
        )
    ratio = None
    try:
        ratio = throughput_ratio(ours, theirs)
    except ConfigError as error:
        reasons.append(error.message)
    return Verdict(
        outcome=_outcome(ratio, target) if ratio and not reasons else Outcome.NOT_COMPARABLE,
        target=target,
        ratio=ratio,
        reasons=tuple(reasons),
        caveats=tuple([*caveats(candidate, baseline), *_few_runs(ours, theirs)]),
        changes=tuple(_changes(candidate, baseline)),
        candidate=candidate,
        baseline=baseline,
    )


def _few_runs(ours: list[ProfileResult], theirs: list[ProfileResult]) -> list[str]:
    """Return what few runs a side leave open."""
    basis = Basis.of(min(len(ours), len(theirs)))
    if basis is Basis.ONE_RUN:
        return [
            "one run a side: slow drifts and new starts are allowed for, not seen (--repeat 3)."
        ]
    return ["two runs a side show roughly what varies (--repeat 3)."] * (basis is Basis.TWO_RUNS)


def _outcome(ratio: Ratio, target: float) -> Outcome:
    """Return what the interval says of the target."""
    if ratio.low >= target:
        return Outcome.MET
    return Outcome.NOT_MET if ratio.high < target else Outcome.UNDECIDED


def _changes(candidate: ProfileResult, baseline: ProfileResult) -> list[Change]:
    """Return the metrics that both runs have: values, or medians."""
    changes = []
    for name in METRICS:
        entries = [run.metrics.get(name) for run in (candidate, baseline)]
        if any(entry is None or entry.not_computable for entry in entries):
            continue  # an older run has not every metric
        ours, theirs = candidate.metric(name), baseline.metric(name)
        if theirs:
            changes.append(Change(name, candidate.metrics[name].unit, ours, theirs))
    return changes
