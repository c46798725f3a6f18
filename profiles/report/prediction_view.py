"""The prediction beside the measurement: figures, differences, and the step by operator."""

from dataclasses import dataclass

from nemotrt.profiles.prediction import PARTS
from nemotrt.profiles.report.scale import label
from nemotrt.profiles.result import ProfileResult

FIGURES = (("tokens_per_s", "tokens/s"), ("tpot_ms", "ms"), ("ttft_ms", "ms"))


@dataclass(frozen=True, slots=True)
class Row:
    """A figure as predicted and as measured; `difference` is of the measurement, in percent."""

    name: str
    unit: str
    predicted: str
    measured: str
    difference: str


def prediction_rows(result: ProfileResult) -> list[Row]:
    """Return throughput, time per token and time to first token, predicted and measured."""
    prediction = result.prediction
    if prediction is None:
        return []
    rows = []
    for name, unit in FIGURES:
        predicted = float(getattr(prediction, name))
        band = ""
        if name == "tokens_per_s":
            low, high = prediction.tokens_per_s_low, prediction.tokens_per_s_high
            band = f" ({label(low)} to {label(high)})"
        measured = difference = "-"
        if not result.metrics[name].not_computable:
            value = result.metric(name)
            measured = label(value)
            difference = f"{100 * (value / predicted - 1):+.0f} %" if predicted else "-"
        rows.append(Row(name, unit, label(predicted) + band, measured, difference))
    return rows


def step_rows(result: ProfileResult) -> list[tuple[str, str, str]]:
    """Return each operator's predicted milliseconds and share of a step, largest first."""
    prediction = result.prediction
    if prediction is None:
        return []
    parts = sorted(((prediction.decode_step_ms[name], name) for name in PARTS), reverse=True)
    total = prediction.decode_step_ms["total"] or 1.0
    return [(name, label(ms), f"{100 * ms / total:.0f} %") for ms, name in parts if ms > 0]


def explanation(result: ProfileResult) -> str:
    """Return what the difference in the time per token means for the operators."""
    prediction, metric = result.prediction, result.metrics["tpot_ms"]
    if prediction is None or metric.statistics is None:
        return ""
    gap_ms = metric.statistics.p50 - prediction.tpot_ms
    total_ms = prediction.decode_step_ms["total"]
    rows = step_rows(result)
    if not rows:
        return ""
    name, ms, share = rows[0]
    text = (
        f"A step was predicted to take {label(total_ms)} ms, most of it for {name} ({ms} ms, "
        f"{share}); a token took {label(abs(gap_ms))} ms "
        f"{'longer' if gap_ms > 0 else 'less'} than predicted."
    )
    if abs(gap_ms) > 0.25 * prediction.tpot_ms:
        text += (
            " No single operator was timed, so the difference is not told apart: calibrate the "
            "planner with this result (nemotrt plan --calibrate), or profile the operators."
        )
    return text
