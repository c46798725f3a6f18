"""The HTML page of a profile result: one file, no network."""

from pathlib import Path

from nemotrt.charts.number import number
from nemotrt.charts.page import page
from nemotrt.charts.spec import About
from nemotrt.charts.svg import figure
from nemotrt.files.writing import write_file
from nemotrt.profiles.hardware.nvml.flags import MAX_LOCKED_SPREAD_MHZ
from nemotrt.profiles.reports.environment import environment
from nemotrt.profiles.reports.plots import histograms, timelines
from nemotrt.profiles.reports.prediction_view import (
    explanation,
    part_rows,
    prediction_rows,
    step_rows,
)
from nemotrt.profiles.reports.turns_view import turns_section
from nemotrt.profiles.runs.metrics.decode_parts import decode_parts
from nemotrt.profiles.runs.record.endings import count_endings, errors_text
from nemotrt.profiles.runs.record.result import ProfileResult, Status

CARDS = ("tokens_per_s", "tokens_per_s_per_user", "ttft_ms", "tpot_ms", "e2e_latency_ms")


def write_html(result: ProfileResult, path: Path) -> None:
    """Write the page whole or not at all."""
    write_file(path, render(result))


def render(result: ProfileResult) -> str:
    """Return the page."""
    parts = decode_parts(result) if result.prediction else None
    body = (
        environment()
        .get_template("page.html.jinja")
        .render(
            result=result,
            workload=_workload_facts(result),
            cards=[(name, result.metrics[name]) for name in CARDS if name in result.metrics],
            timelines=[list(map(figure, column)) for column in timelines(result)],
            histograms=list(map(figure, histograms(result))),
            turns=turns_section(result.turns),
            prediction_rows=prediction_rows(result),
            step_rows=step_rows(result),
            part_rows=part_rows(result, parts),
            explanation=explanation(result, parts),
            max_locked_spread_mhz=MAX_LOCKED_SPREAD_MHZ,
            errors=errors_text(count_endings(result.requests)),
        )
    )
    is_bad = result.status is not Status.COMPLETE
    target = f"{result.target['kind']} \N{MIDDLE DOT} {result.target.get('model', '')}"
    title = f"nemotrt profile \N{MIDDLE DOT} {target} \N{MIDDLE DOT} {result.started_at}"
    return page(About(title, verdict(result), notes=tuple(result.notes), is_bad=is_bad), body)


def _workload_facts(result: ProfileResult) -> dict[str, object]:
    """Return the workload; a trace by its length, since it may have thousands of lines."""
    facts = result.workload.model_dump(exclude={"trace"})
    if result.workload.trace:
        facts["trace"] = f"{len(result.workload.trace)} requests"
    return facts


def verdict(result: ProfileResult) -> str:
    """Return the one sentence that a reader needs first."""
    load = result.workload
    shape = f"{load.isl} tokens in, {load.osl} out"
    shape = load.sessions.text(load.isl, load.osl) if load.sessions else shape
    shape += f", {load.concurrency} at a time"
    if result.status is not Status.COMPLETE:
        return f"This run is not complete ({result.status}): {result.reason} It was {shape}."
    rate = result.metrics["tokens_per_s"]
    if rate.value is None:
        return f"{shape}: no throughput, since {rate.not_computable}"
    ttft = result.metric("ttft_ms")
    return (
        f"{number(rate.value)} tokens/s at {shape}; first token after {number(ttft)} ms (median)."
    )
