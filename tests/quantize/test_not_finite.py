"""A quality that can't be computed is an error, never a figure."""

import math

import numpy as np
import pytest

from nemotrt.errors import NemotrtError
from nemotrt.quantize.quality.quality import Tally

GOOD = np.zeros((3, 5), np.float32)
FOLLOWING = np.array([0, 1, 2])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("who", ["reference", "candidate"])
@pytest.mark.parametrize("place", [(0, 0), (1, 4), (2, 2)])
def test_a_logit_that_is_not_finite_is_refused_by_text_and_side(bad, who, place) -> None:
    spoiled = GOOD.copy()
    spoiled[place] = bad
    tally = Tally("en")
    tally.add(GOOD, GOOD, FOLLOWING)
    pair = (spoiled, GOOD) if who == "reference" else (GOOD, spoiled)
    with pytest.raises(NemotrtError, match=f"text en: the {who}'s logits are not finite"):
        tally.add(*pair, FOLLOWING)


def test_a_perplexity_beyond_a_float_is_an_error() -> None:
    sure = np.array([[0.0, -3000.0]], np.float32)
    tally = Tally("en")
    tally.add(np.zeros((1, 2), np.float32), sure, np.array([1]))
    with pytest.raises(NemotrtError, match="of the candidate 3000"):
        tally.result()
