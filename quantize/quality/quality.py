"""What a comparison finds: figures a text, a layer and a linear; and how a text's are summed."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nemotrt.errors import NemotrtError

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
    """Sums over the positions of one text."""

    name: str
    losses: list[float] = field(default_factory=lambda: [0.0, 0.0])
    divergence: float = 0.0
    num_agreed: int = 0
    num_tokens: int = 0

    def add(self, reference: Floats, candidate: Floats, following: Ids) -> None:
        """Take in two logits [positions, vocab] and the token that follows each position.

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
        first, second = _log_softmax(reference), _log_softmax(candidate)
        positions = np.arange(len(following))
        for place, value in enumerate((first, second)):
            self.losses[place] -= float(value[positions, following].sum(dtype=np.float64))
        # p log(p / q) = p (q / p - 1 - log(q / p)) in sum; no term of this is negative or cancels
        change = second - first
        terms = np.exp(first) * np.maximum(np.expm1(change) - change, 0)
        self.divergence += float(terms.sum(dtype=np.float64))
        self.num_agreed += int((first.argmax(-1) == second.argmax(-1)).sum())
        self.num_tokens += len(following)

    def result(self) -> TextQuality:
        """Return the means.

        Raises:
            NemotrtError: a perplexity exceeds what a float can hold.
        """
        means = [loss / self.num_tokens for loss in self.losses]
        if not max(means) < LARGEST_LOSS:
            raise NemotrtError(
                f"text {self.name}: the mean loss of the reference is {means[0]:g} nats, of the "
                f"candidate {means[1]:g}; its exponential is no number."
            )
        perplexities = [math.exp(mean) for mean in means]
        return TextQuality(
            name=self.name,
            num_tokens=self.num_tokens,
            reference_perplexity=perplexities[0],
            perplexity=perplexities[1],
            mean_kl_divergence=self.divergence / self.num_tokens,
            top1_agreement=self.num_agreed / self.num_tokens,
        )


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
