"""What two rows of logits say of a token: both losses, their divergence, whether the tops agree."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.codes.jit import compiled
from nemotrt.quantize.scales.amax import num_threads

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Figures = npt.NDArray[np.float64]
ROWS = 16  # of logits that a thread takes at once


def token_figures(reference: Floats, candidate: Floats, following: Ids) -> Figures:
    """Return [positions, 4]: loss of each, KL(reference || candidate) in nats, and 1 if tops agree.

    Logits that are not finite give figures that are not.

    Args:
        reference: [positions, vocab].
        candidate: [positions, vocab].
        following: the token behind each position.
    """
    figures = np.empty((len(following), 4))
    every = [slice(begin, begin + ROWS) for begin in range(0, len(following), ROWS)]

    def work(rows: slice) -> None:
        _compare_rows(reference[rows], candidate[rows], following[rows], figures[rows])

    if len(every) == 1:
        work(every[0])
        return figures
    with ThreadPoolExecutor(num_threads()) as pool:
        for _ in pool.map(work, every):
            pass
    return figures


@compiled
def _compare_rows(first: Floats, second: Floats, following: Ids, figures: Figures) -> None:
    """Fill the figures. In sum p log(p / q) = p (q / p - 1 - log(q / p)), whose terms are >= 0."""
    for r in range(first.shape[0]):
        one, other, best, best_other = first[r], second[r], 0, 0
        for i in range(one.size):
            if one[i] > one[best] or one[i] != one[i]:
                best = i
            if other[i] > other[best_other] or other[i] != other[i]:
                best_other = i
        top, top_other = one[best], other[best_other]
        total, total_other = 0.0, 0.0
        for i in range(one.size):
            total += np.exp(np.float64(one[i] - top))
            total_other += np.exp(np.float64(other[i] - top_other))
        log_total, log_other = np.log(total), np.log(total_other)
        divergence = 0.0
        for i in range(one.size):
            log_p = np.float64(one[i] - top) - log_total
            change = (np.float64(other[i] - top_other) - log_other) - log_p
            divergence += np.exp(log_p) * max(np.expm1(change) - change, 0.0)
        at = following[r]
        figures[r, 0] = log_total - np.float64(one[at] - top)
        figures[r, 1] = log_other - np.float64(other[at] - top_other)
        figures[r, 2] = divergence
        figures[r, 3] = 1.0 if best == best_other else 0.0
