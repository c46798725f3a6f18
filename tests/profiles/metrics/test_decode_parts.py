"""Where a token's time goes, on simulated runs whose steps are made of known parts."""

import numpy as np
import pytest

from nemotrt.profiles.reports.page import render
from nemotrt.profiles.runs.metrics.decode_parts import decode_parts
from nemotrt.profiles.runs.record.prediction import Prediction
from support.simulated_run import simulate

PLAN = Prediction(
    gpu="a10g",
    model="m",
    precision="bf16",
    batch_size=4,
    tokens_per_s_low=1.0,
    tokens_per_s=10.0,
    tokens_per_s_high=20.0,
    ttft_ms=1.0,
    tpot_ms=13.0,
    decode_step_ms={
        "weights": 8.0,
        "attention": 2.0,
        "ssm": 1.0,
        "elementwise": 0.5,
        "interconnect": 0.0,
        "overhead": 0.5,
        "total": 12.0,
    },
    bound_by="weights",
    limited_by="memory",
    notes=(),
)


@pytest.mark.parametrize("users", [1, 4])
def test_attention_is_what_grows_with_the_tokens_held(users):
    """A step takes 10 ms and 0.02 ms for each token held; noise is 2 %."""
    run = simulate(3, users=users, osl=400, per_user=6, ms_per_held_token=0.02, noise=0.02)
    parts = decode_parts(run)
    assert parts is not None
    # users * 10 prompt tokens, and half an answer each
    assert parts.held_tokens == pytest.approx(users * (10 + 200), rel=0.05)
    assert parts.attention_ms == pytest.approx(0.02 * parts.held_tokens, abs=1.0)
    assert abs(parts.attention_ms - 0.02 * parts.held_tokens) < 2 * parts.attention_reach_ms
    assert parts.step_ms == pytest.approx(10 + 0.02 * parts.held_tokens, rel=0.02)


def test_prefills_of_others_are_a_part_of_their_own():
    """Each new request stalls the three others for 50 ms: 50 ms * 3 / 4 a token, over 64 tokens."""
    parts = decode_parts(simulate(5, users=4, osl=64, per_user=20, noise=0.02))
    assert parts is not None
    assert parts.step_ms == pytest.approx(10, rel=0.02)
    assert parts.prefill_ms == pytest.approx(3 * 50 / 64, rel=0.1)
    run = simulate(5, users=4, osl=64, per_user=20, noise=0.02)
    assert parts.step_ms + parts.prefill_ms == pytest.approx(run.metric("tpot_ms", "mean"))


def test_a_slope_that_noise_hides_is_not_told():
    """The interval covers the truth in at least 90 of 100 runs, told or not."""
    hits = []
    for seed in range(40):
        parts = decode_parts(simulate(seed, users=4, osl=128, ms_per_held_token=0.002))
        assert parts is not None
        truth_ms = 0.002 * parts.held_tokens
        told = parts.attention_ms
        hits.append(told is None or abs(told - truth_ms) < parts.attention_reach_ms)
    assert np.mean(hits) >= 0.9


def test_the_page_explains_the_difference_by_operator():
    run = simulate(3, users=1, osl=400, per_user=6, ms_per_held_token=0.02, noise=0.02)
    text = render(run.model_copy(update={"prediction": PLAN}))
    assert "the largest part of it is in: attention over the KV cache" in text
    assert "Time per output token by operator" in text
