"""The page of a check: what holds, what was compared with which bound, and what was measured."""

from html import escape

from nemotrt.build.check.result.report import HEADS, CheckReport, row_cells
from nemotrt.charts.number import number
from nemotrt.charts.page import page, plots, table
from nemotrt.charts.spec import About, Bars

MEASURED = "Every figure was measured on this machine, in this run, but for those of the planner."


def render(report: CheckReport) -> str:
    """Return the page."""
    facts = report.gpu.facts
    assumptions: list[tuple[str, object]] = [("At", report.at)]
    if report.has_gpu:
        assumptions.append(("GPU", report.gpu_name))
    if facts:
        assumptions.append(("Driver", f"{facts.driver}, CUDA {facts.cuda_driver}"))
    about = About(
        "nemotrt check",
        report.verdict,
        tuple(assumptions),
        (
            *map(str, report.faults),
            *([report.gpu.note] if report.gpu.note and report.has_gpu else []),
            MEASURED,
        ),
        is_bad=bool(report.faults),
    )
    return page(about, _engines(report) + _kernels(report))


def _engines(report: CheckReport) -> str:
    """Return the engines' table, and what was predicted."""
    rows = []
    for each in report.engines:
        found = each.comparison
        error = (f"{found.error:.2g}", f"{found.bound:.2g}") if found else ("", "")
        rates = each.prefill_tokens_per_s, each.decode_tokens_per_s
        speeds = ("" if rate is None else number(rate) for rate in rates)
        names = each.engine, each.backend, each.precision, each.reference or "nothing"
        rows.append((*names, *error, *speeds))
    if not rows:
        return ""
    heads = ("Engine", "Backend", "Precision", "Against", "Off by", "Bound")
    reasons = dict.fromkeys(each.comparison.why for each in report.engines if each.comparison)
    guesses = [(str(each),) for each in report.predicted]
    return (
        f"<h2>Engines</h2>{table((*heads, 'Prefill, tokens/s', 'Decode, tokens/s'), rows, 4)}"
        + "".join(f"<p>Bound: {escape(why)}.</p>" for why in reasons)
        + (f"<h2>Predicted, not measured</h2>{table(('Planner',), guesses)}" if guesses else "")
    )


def _kernels(report: CheckReport) -> str:
    """Return the kernels' shares of a copy's bandwidth, and their table."""
    rows = report.kernels.rows if report.kernels else []
    if not rows:
        return ""
    timed = [(row, row.timing) for row in rows if row.timing]
    charts = []
    if timed:
        names = tuple(f"{r.kernel} {r.case} {r.sequences} x {r.tokens}" for r, _ in timed)
        charts.append(
            Bars(
                "Bandwidth beside a copy's",
                "share of a device-to-device copy of as many bytes",
                names,
                (("share", tuple(time.copy_share for _, time in timed)),),
                texts=tuple(f"{time.us:.1f} us" for _, time in timed),
                marks=(1.0,) * len(timed),
                mark_name="the copy",
            )
        )
    reasons = dict.fromkeys((c.what, f"{c.bound:g}", c.why) for r in rows for c in r.comparisons)
    return (
        plots(charts)
        + f"<h2>Kernels</h2>{table(HEADS, map(row_cells, rows), num_names=2)}"
        + f"<h2>Bounds</h2>{table(('What', 'Bound', 'Why'), reasons, num_names=3)}"
    )
