"""The page of a verdict: candidate, baseline, their ratio against the target, and what differs."""

from collections.abc import Sequence
from pathlib import Path

from nemotrt.charts.number import number
from nemotrt.charts.page import page, plots, table
from nemotrt.charts.spec import About, Bars, Chart, Lines, Series
from nemotrt.files.writing import write_file
from nemotrt.profiles.reports.comparison import curves, runs_table
from nemotrt.profiles.reports.gpu_plots import gpu_plots
from nemotrt.profiles.runs.record.identity import identity
from nemotrt.profiles.runs.record.result import ProfileResult
from nemotrt.profiles.verdict.judge import Outcome, Verdict

COMMON = ("precision", "backend", "hardware", "load")  # said once where both sides have it
SIDES = ("candidate", "baseline")
Runs = Sequence[ProfileResult]


def write_verdict(verdict: Verdict, candidates: Runs, baselines: Runs, path: Path) -> None:
    """Write the page whole or not at all; the runs are all of each side's sweep."""
    write_file(path, render_verdict(verdict, candidates, baselines))


def render_verdict(verdict: Verdict, candidates: Runs, baselines: Runs) -> str:
    """Return the page."""
    names, differences = verdict.names, verdict.differences
    facts = identity(verdict.candidate)
    shared = {name: value for name, value in facts.items() if name not in differences}
    about = About(
        f"nemotrt compare \N{MIDDLE DOT} {names[0]} against {names[1]}",
        verdict.sentence,
        assumptions=(
            *((side.capitalize(), name) for side, name in zip(SIDES, names, strict=True)),
            ("Claimed ratio", f"{verdict.target:g}"),
            *((name.capitalize(), shared[name]) for name in COMMON if name in shared),
        ),
        notes=verdict.caveats,
        is_bad=verdict.outcome in (Outcome.NOT_MET, Outcome.NOT_COMPARABLE),
    )
    runs = [*candidates, *baselines]
    lines = [
        f"{side}: {name}"
        for side, name, its in zip(SIDES, names, (candidates, baselines), strict=True)
        for _ in its
    ]
    charts: list[Chart] = [*_ratio_bars(verdict), *curves(runs, lines), *_gpus_beside(verdict)]
    body = plots(charts) + _changes(verdict) + _differences(verdict) + runs_table(runs, lines)
    return page(about, body)


def _ratio_bars(verdict: Verdict) -> list[Bars]:
    """Return the measured ratio with its interval, and the planner's, against the target."""
    ratio, planned = verdict.ratio, verdict.predicted_ratio
    if ratio is None:
        return []
    rows = [("measured", ratio.best, ratio.text)]
    if planned is not None:
        rows.append(("predicted", planned, "by the planner, not measured"))
    names, values, texts = zip(*rows, strict=True)
    bars = Bars(
        "Ratio of throughputs",
        "candidate / baseline",
        names,
        (("ratio", values),),
        texts=texts,
        marks=(verdict.target,) * len(rows),
        mark_name="claimed ratio",
    )
    return [bars]


def _gpus_beside(verdict: Verdict) -> list[Lines]:
    """Return each figure of the GPUs over the run's time, both sides in one chart."""
    sides = [
        {chart.title: chart for chart in gpu_plots(run)}
        for run in (verdict.candidate, verdict.baseline)
    ]
    titles = dict.fromkeys(title for side in sides for title in side)
    return [
        Lines(
            title,
            "seconds since each run's start",
            next(side[title].y_label for side in sides if title in side),
            tuple(
                Series(f"{name}: {line.name}", line.points)
                for name, side in zip(SIDES, sides, strict=True)
                if title in side
                for line in side[title].series
            ),
        )
        for title in titles
    ]


def _changes(verdict: Verdict) -> str:
    """Return the metrics of both sides as a table."""
    rows = [
        (c.name, c.unit, number(c.candidate), number(c.baseline), f"{c.ratio:.3f}")
        for c in verdict.changes
    ]
    heads = ("Metric, median", "Unit", "Candidate", "Baseline", "Ratio")
    return f"<h2>Metrics</h2>{table(heads, rows, num_names=2)}" if rows else ""


def _differences(verdict: Verdict) -> str:
    """Return what differs between the two sides as a table."""
    rows = [(name, *values) for name, values in verdict.differences.items()]
    if not rows:
        return "<h2>What differs</h2><p>Nothing that the runs tell of themselves.</p>"
    return f"<h2>What differs</h2>{table(('Fact', 'Candidate', 'Baseline'), rows, num_names=3)}"
