"""The prediction beside the measurement: figures, differences, and the step by operator."""

from dataclasses import dataclass

from nemotrt.charts.number import number
from nemotrt.profiles.runs.metrics.decode_parts import DecodeParts
from nemotrt.profiles.runs.record.result import ProfileResult

ATTENTION = "attention over the KV cache"
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
            band = f" ({number(low)} to {number(high)})"
        measured = difference = "-"
        if not result.metrics[name].not_computable:
            value = result.metric(name)
            measured = number(value)
            difference = f"{100 * (value / predicted - 1):+.0f} %" if predicted else "-"
        rows.append(Row(name, unit, number(predicted) + band, measured, difference))
    return rows


def step_rows(result: ProfileResult) -> list[tuple[str, str, str]]:
    """Return each operator's predicted milliseconds and share of a step, largest first."""
    prediction = result.prediction
    if prediction is None:
        return []
    step = prediction.decode_step_ms
    parts = sorted(((ms, name) for name, ms in step.items() if name != "total"), reverse=True)
    total = step["total"] or 1.0
    return [(name, number(ms), f"{100 * ms / total:.0f} %") for ms, name in parts if ms > 0]


def part_rows(result: ProfileResult, parts: DecodeParts | None) -> list[Row]:
    """Return the time per output token by what it goes to, predicted and measured."""
    prediction = result.prediction
    if prediction is None or parts is None:
        return []
    step = prediction.decode_step_ms
    rest = step["total"] - step["attention"]
    others = prediction.tpot_ms - step["total"]
    if parts.attention_ms is None:
        pairs = [("decode step", step["total"], parts.step_ms)]
    else:
        pairs = [
            (ATTENTION, step["attention"], parts.attention_ms),
            ("weights, states, elementwise, overhead", rest, parts.step_ms - parts.attention_ms),
        ]
    pairs += [("prefills of others", others, parts.prefill_ms)]
    pairs += [("time per output token, mean", prediction.tpot_ms, _mean_tpot_ms(result))]
    return [
        Row(name, "ms", number(predicted), number(measured), f"{measured - predicted:+.3g}")
        for name, predicted, measured in pairs
    ]


def _mean_tpot_ms(result: ProfileResult) -> float:
    return result.metric("tpot_ms", "mean")


def explanation(result: ProfileResult, parts: DecodeParts | None) -> str:
    """Return where the difference in the time per token comes from, by operators."""
    prediction, rows = result.prediction, part_rows(result, parts)
    if prediction is None or not rows or parts is None:
        return ""
    *causes, total = rows
    largest = max(causes, key=lambda row: abs(float(row.difference)))
    text = (
        f"A token took {total.measured} ms where {total.predicted} ms were predicted "
        f"({total.difference} ms); the largest part of it is in: {largest.name} "
        f"({largest.difference} ms). "
    )
    if parts.attention_ms is None:
        return text + (
            "Attention is not told apart: the tokens held change too little for the noise. A run "
            "with one user shows it best."
        )
    return text + (
        f"Attention is what grows with the tokens held ({number(parts.held_tokens)} on average), "
        f"to within {number(parts.attention_reach_ms)} ms; what does not grow can be told apart by "
        "other batch sizes: set a sweep's runs side by side."
    )
