"""Requests that come at a rate: against queueing theory, by hand, and as a user asks."""

import json
import random
from itertools import accumulate

import pytest
from click.testing import CliRunner, Result

from nemotrt.cli import main
from nemotrt.profiles.planning.time.operators import Call
from nemotrt.profiles.planning.time.play.requests import Load
from nemotrt.profiles.planning.time.play.scheduler import play, play_arrivals


def by_tokens(call: Call) -> float:
    """A second a prompt token, a tenth for a decode step."""
    return 0.1 if call.is_decode else float(call.num_tokens)


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_one_server_waits_as_an_m_d_1_queue(share: float) -> None:
    """Source: Pollaczek and Khinchine: rho / (2 (1 - rho)) services, of constant services."""
    drawn, service_s = random.Random(3), 10.0
    arrivals = list(accumulate(drawn.expovariate(share / service_s) for _ in range(12_000)))
    found = play_arrivals(Load(10, 1, 0, 10, True), by_tokens, arrivals, 1)
    assert found.mean_s - service_s == pytest.approx(
        service_s * share / (2 * (1 - share)), rel=0.08
    )


def test_arrivals_by_hand() -> None:
    # 10 s a prompt, then 3 steps of 0.1 s. The second comes while the first is read, and waits for
    # the slot: its prompt is read from 10.3 to 20.3. With two slots 9 of its tokens go beside a
    # token of the first one (10 s), and the last beside another (2 s): it waits from 5 to 22.
    load = Load(10, 4, 0, 10, True)
    one = play_arrivals(load, by_tokens, [0.0, 5.0], 1)
    assert one.first_token_s == pytest.approx((10.0, 15.3))
    two = play_arrivals(load, by_tokens, [0.0, 5.0], 2)
    assert two.first_token_s == pytest.approx((10.0, 17.0))
    apart = play_arrivals(load, by_tokens, [0.0, 100.0], 1)
    assert apart.first_token_s == pytest.approx((10.0, 10.0))
    assert apart.token_s == pytest.approx(0.1)


def test_who_comes_while_others_decode_is_let_in_at_once() -> None:
    # The first decodes from 10.0 on. The second comes at 12.05, in a step, and is read from its end
    # on, beside a token of the first: 11 s.
    found = play_arrivals(Load(10, 100, 0, 20, True), by_tokens, [0.0, 12.05], 2)
    assert found.first_token_s[-1] == pytest.approx(0.05 + 11, abs=1e-6)


def test_all_at_once_is_a_burst() -> None:
    load = Load(10, 5, 4, 10, True)
    burst = play(load, by_tokens).burst_s
    assert play_arrivals(load, by_tokens, [0.0] * 4, 4).burst_s == burst


def run(*args: str) -> Result:
    lengths = ("--isl", "256", "--osl", "64", "--engine", "vllm", "--batch-size", "8")
    return CliRunner().invoke(main, ["plan", "qwen3-8b", "--gpu", "h100", *lengths, *args])


def test_a_rate_breaks_where_its_target_is_missed() -> None:
    target = ("--ttft-ms", "100", "--tpot-ms", "50")
    slow = json.loads(run("--rate", "1", *target, "--json").stdout)["open_loop"]
    assert 0 < slow["breaks_at_per_s"] <= slow["saturation_per_s"]
    below, above = slow["breaks_at_per_s"] * 0.98, slow["breaks_at_per_s"] * 1.1
    for rate, is_met in ((below, True), (above, False)):
        found = json.loads(run("--rate", str(rate), *target, "--json").stdout)["open_loop"]
        assert (found["ttft_p95_ms"] <= 100 and found["tpot_ms"] <= 50) is is_met
    assert slow["ttft_p50_ms"] <= slow["ttft_p95_ms"]
    table = run("--rate", "1", *target).stdout
    assert "1 requests/s at random" in table and "highest rate within the target" in table


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--rate", "1", "--concurrency", "4"), 2, "not --concurrency"),
        (("--rate", "1", "--sessions"), 2, "--rate is of single requests"),
        (("--rate", "0"), 2, "--rate"),
        (("--rate", "1", "--ttft-ms", "1"), 4, "has the engine to itself"),
    ],
)
def test_what_a_rate_is_not(args: tuple[str, ...], code: int, words: str) -> None:
    result = run(*args)
    assert result.exit_code == code, result.output
    assert words in result.stderr
