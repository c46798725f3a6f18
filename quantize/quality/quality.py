"""What a comparison finds: figures a text, a layer and a linear; and how a text's are summed."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nemotrt.errors import NemotrtError
from nemotrt.quantize.quality.figures.intervals import StandardErrors, standard_error
from nemotrt.quantize.quality.figures.token_figures import Figures, token_figures

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
LARGEST_LOSS = 700.0  # nats; exp of more than 709 is beyond float64


@dataclass(frozen=True, slots=True)
class TextQuality:
    """What one text (a language, say) shows."""

    name: str
    num_tokens: int
    reference_perplexity: float
    perplexity: float
    mean_kl_divergence: float
    top1_agreement: float
    standard_errors: StandardErrors | None = None  # None: too few windows to tell
    num_windows: int = 0
    left_out_tokens: int = 0  # of the text, beyond what was asked for


@dataclass(frozen=True, slots=True)
class LayerError:
    """How far one block is off: alone, on the reference's input, and with all before it."""

    layer: int
    kind: str
    relative_error: float  # of what the block adds to the residual stream
    by_text: dict[str, float]  # the same, over each text alone
    stream_relative_error: float  # of the residual stream after it


@dataclass(frozen=True, slots=True)
class LinearError:
    """How far one quantized linear is off on the reference's input, as relative RMS errors."""

    layer: int
    name: str  # of the module
    weight_error: float
    input_error: float  # 0 where activations stay in 16 bit
    output_error: float


@dataclass(frozen=True, slots=True)
class Quality:
    """A candidate against a reference; an engine shows logits only: no layers, no linears."""

    reference: str
    candidate: str
    backend: str | None  # of an engine; None for a checkpoint
    precision: str  # a checkpoint's quant_algo, an engine's precision
    texts: tuple[TextQuality, ...]
    layers: tuple[LayerError, ...] = ()  # worst first
    linears: tuple[LinearError, ...] = ()  # worst first


@dataclass(slots=True)
class Tally:
    """Sums over the windows of one text, which give its means and how sure they are."""

    name: str
    left_out: int = 0  # tokens of the text that are not compared
    _windows: dict[int, Figures] = field(default_factory=dict)  # window -> sums, and a count

    @property
    def num_tokens(self) -> int:
        """The positions so far."""
        return int(sum(sums[-1] for sums in self._windows.values()))

    def add(
        self, reference: Floats, candidate: Floats, following: Ids, windows: Ids | None = None
    ) -> None:
        """Take in two logits [positions, vocab] and the token that follows each position.

        `windows` has the window of each position, counted from the text's start; by default they
        are the next window.

        Raises:
            NemotrtError: a logit is not finite: nothing that is summed from it would be a figure.
        """
        for who, logits in (("reference", reference), ("candidate", candidate)):
            if not np.isfinite(logits).all():
                raise NemotrtError(
                    f"text {self.name}: the {who}'s logits are not finite (NaN or infinity), "
                    f"within the positions {self.num_tokens} to "
                    f"{self.num_tokens + len(following) - 1}; no quality can be computed."
                )
        figures = token_figures(reference, candidate, following)
        if windows is None:
            windows = np.full(len(following), len(self._windows))
        for window in np.unique(windows).tolist():
            rows = figures[windows == window]
            sums = np.append(rows.sum(axis=0), len(rows))
            self._windows[window] = self._windows.get(window, np.zeros(5)) + sums

    def result(self) -> TextQuality:
        """Return the means and their errors.

        Raises:
            NemotrtError: a perplexity exceeds what a float can hold.
        """
        sums = np.array([self._windows[window] for window in sorted(self._windows)]).T
        counts = sums[-1]
        means = [float(column.sum() / counts.sum()) for column in sums[:-1]]
        if not max(means[:2]) < LARGEST_LOSS:
            raise NemotrtError(
                f"text {self.name}: the mean loss of the reference is {means[0]:g} nats, of the "
                f"candidate {means[1]:g}; its exponential is no number."
            )
        perplexities = [math.exp(mean) for mean in means[:2]]
        return TextQuality(
            name=self.name,
            num_tokens=self.num_tokens,
            reference_perplexity=perplexities[0],
            perplexity=perplexities[1],
            mean_kl_divergence=means[2],
            top1_agreement=means[3],
            standard_errors=_errors(sums, perplexities),
            num_windows=len(counts),
            left_out_tokens=self.left_out,
        )


def _errors(sums: Figures, perplexities: list[float]) -> StandardErrors | None:
    """Return the errors of means of [5, windows]; of exponentials to the first order."""
    counts = sums[-1]
    columns = (sums[0], sums[1], sums[1] - sums[0], sums[2], sums[3])
    found = [standard_error(column, counts) for column in columns]
    told = [error for error in found if error is not None]
    if len(told) < len(found):
        return None
    first, second, change, divergence, agreement = told
    reference, candidate = perplexities
    return StandardErrors(
        first * reference, second * candidate, change * candidate / reference, divergence, agreement
    )
