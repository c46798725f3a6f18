"""What the benchmark finds, as it is kept."""

import statistics
from dataclasses import dataclass

import numpy as np
from peers import Entry

from nemotrt.profiles.engine_step.load import Load


@dataclass(frozen=True, slots=True)
class Result:
    """One engine in one case: tokens a second, at best and in the median of the calls."""

    model: str
    engine: str
    weights: str
    group: str
    case: str
    num_calls: int
    best: float
    median: float
    roofline_share: float | None  # of the best call
    peak_bytes: int

    @classmethod
    def of(
        cls,
        model: str,
        entry: Entry,
        case: str,
        load: Load,
        seconds: list[float],
        least_s: float | None,
        peak_bytes: int,
    ) -> "Result":
        """Return the result of timed calls."""
        return cls(
            model=model,
            engine=entry.engine,
            weights=entry.weights,
            group=entry.group,
            case=case,
            num_calls=len(seconds),
            best=load.num_tokens / min(seconds),
            median=load.num_tokens / statistics.median(seconds),
            roofline_share=least_s / min(seconds) if least_s else None,
            peak_bytes=peak_bytes,
        )

    @property
    def label(self) -> str:
        """Name the engine and its weights."""
        return f"{self.engine} {self.weights}"


@dataclass(frozen=True, slots=True)
class Error:
    """How far an engine's logits are from transformers' in float32."""

    model: str
    label: str
    max_abs: float
    rms: float
    rms_of_std: float  # over the reference's standard deviation
    top1_agreement: float

    @classmethod
    def of(cls, model: str, label: str, rows: np.ndarray, reference: np.ndarray) -> "Error":
        """Compare logits [tokens, vocabulary]."""
        difference = rows - reference
        rms = float(np.sqrt(np.mean(difference**2)))
        agreement = float(np.mean(rows.argmax(1) == reference.argmax(1)))
        maximum = float(np.abs(difference).max())
        return cls(model, label, maximum, rms, rms / float(reference.std()), agreement)
