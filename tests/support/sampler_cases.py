"""What samplers are tried with: settings of every size, and the definition's probabilities."""

import math

import numpy as np
from hypothesis import strategies as st

from nemotrt.engines.runtime.sampling.guide import FREE, Allowed, Forced, Rule
from nemotrt.engines.runtime.sampling.params import SamplingParams

weird = st.floats(-50, 50, width=32) | st.sampled_from([0.0, 1e-45, -1e-45, 1e30, -1e30])
# changed logits are float32 in the compiled sampler, float64 in NumPy's: these are exact in both
exact = st.integers(-400, 400).map(lambda eighths: eighths / 8)


@st.composite
def settings_of_every_size(
    draw: st.DrawFn, top_k: st.SearchStrategy[int], min_p: st.SearchStrategy[float]
) -> tuple[np.ndarray, SamplingParams, list[Rule]]:
    """A row of logits, a request's settings, and rules: ties, masks, forced tokens."""
    logits = draw(
        st.lists(exact, min_size=1, max_size=40) | st.lists(weird, min_size=1, max_size=40)
    )
    repetition = draw(st.sampled_from([0.5, 1.0, 2.0]))
    penalty = draw(st.sampled_from([-1.0, 0.0, 0.25]))
    biases: tuple[tuple[int, float], ...] = ()
    if any(logit * 8 % 1 or abs(logit) > 50 for logit in logits):
        repetition, penalty = 1.0, 0.0
    else:
        pairs = st.tuples(st.integers(0, len(logits) - 1), exact)
        biases = tuple(draw(st.lists(pairs, max_size=3)))
    row = np.array(logits * draw(st.sampled_from([1, 1, 13])), np.float32)
    token = st.integers(0, row.size - 1)
    masks = st.lists(st.booleans(), min_size=row.size, max_size=row.size).filter(any)
    mask = masks.map(lambda bits: Allowed(np.array(bits)))
    rules = draw(st.lists(st.just(FREE) | token.map(Forced) | mask, min_size=1, max_size=4))
    params = SamplingParams(
        max_tokens=8,
        temperature=draw(st.sampled_from([0.0, 0.1, 0.6, 1.0, 5.0])),
        top_k=draw(top_k),
        top_p=draw(st.sampled_from([1e-9, 0.25, 0.5, 0.75, 0.95, 1.0])),
        min_p=draw(min_p),
        repetition_penalty=repetition,
        presence_penalty=penalty,
        frequency_penalty=penalty,
        min_tokens=draw(st.integers(0, 3)),
        seed=draw(st.integers(0, 2**64 - 1)),
        stop_token_ids=tuple(draw(st.sets(token, max_size=3))),
        logit_bias=biases,
    )
    return row, params, rules


def probabilities(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """The definition once more, by sorting in float64."""
    weights = np.exp((logits - logits.max()).astype(np.float64) / params.temperature)
    order = np.argsort(-weights, kind="stable")
    kept = weights[order] >= params.min_p
    if params.top_k:
        kept[params.top_k :] = False
    mass = np.where(kept, weights[order], 0)
    kept &= np.cumsum(mass) - mass < params.top_p * mass.sum()
    result = np.zeros(logits.size)
    result[order[kept]] = weights[order[kept]]
    return result / result.sum()


def excess(counts: np.ndarray, chances: np.ndarray) -> float:
    """How many deviations a chi-square statistic is above its mean; -inf for one outcome.

    4.5 deviations happen once in 300,000 tests. Draws of what can't come are told by infinity.
    """
    expected = chances * counts.sum()
    if (counts[expected == 0] > 0).any():
        return math.inf
    rare = expected < 10
    found = np.append(counts[~rare], counts[rare].sum())
    hoped = np.append(expected[~rare], expected[rare].sum())
    found, hoped = found[hoped > 0], hoped[hoped > 0]
    statistic = ((found - hoped) ** 2 / hoped).sum()
    degrees = found.size - 1
    if degrees == 0:
        return -math.inf
    # the Wilson-Hilferty approximation
    center = (statistic / degrees) ** (1 / 3) - 1 + 2 / (9 * degrees)
    return float(center / math.sqrt(2 / (9 * degrees)))
