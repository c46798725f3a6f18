"""Warm and cold prefix caches are never compared unawares."""

import itertools

import pytest

from nemotrt.profiles.load.exchange import TurnPlace
from nemotrt.profiles.runs.record.identity import differences, identity, line_names
from nemotrt.profiles.runs.record.prefix_cache import CacheUse, cache_use, cached_share
from nemotrt.profiles.runs.record.result import SessionsRecord
from nemotrt.profiles.verdict.comparability import caveats, obstacles
from nemotrt.profiles.verdict.judge import Outcome, judge
from support.simulated_run import simulate

RUN = simulate(1, users=2, osl=16, per_user=4)
SESSIONS = SessionsRecord(num_turns=12, system_tokens=2048)


def run(cached, *, is_agents=False, base=RUN):
    """A run of prompts of 10 tokens, of which `cached(i)` came from the cache."""
    requests = tuple(
        r.model_copy(
            update={
                "cached_tokens": cached(i),
                "place": TurnPlace(i // 12, i % 12 + 1, 12) if is_agents else None,
            }
        )
        for i, r in enumerate(base.requests)
    )
    load = base.workload.model_copy(update={"sessions": SESSIONS if is_agents else None})
    return base.model_copy(update={"requests": requests, "workload": load})


NOT_TOLD, COLD = (lambda i: None), (lambda i: 2)  # a template's head is no warm cache
WARM, STARTED_WARM = (lambda i: 9 if i else 0), (lambda i: 9)
USES = {
    CacheUse.NOT_TOLD: NOT_TOLD,
    CacheUse.COLD: COLD,
    CacheUse.WARM: WARM,
    CacheUse.STARTED_WARM: STARTED_WARM,
}


@pytest.mark.parametrize("use", CacheUse)
def test_what_a_cache_held(use):
    assert cache_use(run(USES[use]).requests) is use


def test_of_the_first_requests_one_may_be_cold():
    """Two are under way at once, and share a block: whichever the server reads first is cold."""
    first_s = min(r.arrivals_s[0] for r in RUN.requests)
    assert [r.index for r in RUN.requests if r.sent_s < first_s] == [0, 1]
    assert cache_use(run(lambda i: 0 if i == 1 else 9).requests) is CacheUse.WARM
    assert cache_use(run(lambda i: 0 if i == 2 else 9).requests) is CacheUse.STARTED_WARM


def test_the_share_is_of_what_is_told():
    """Three prompts of 10 tokens: 4 of one cached, none of the next, the last says nothing."""
    requests = run(lambda i: (4, 0, None)[i % 3]).requests[:3]
    assert cached_share(requests) == pytest.approx(0.2)
    assert cached_share(run(NOT_TOLD).requests) is None


@pytest.mark.parametrize("is_agents", [False, True])
@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product(CacheUse, repeat=2)))
def test_every_pair_matches_or_is_named(ours, theirs, is_agents):
    """Every pair of uses, of single requests and of agents."""
    pair = [run(USES[use], is_agents=is_agents) for use in (ours, theirs)]
    named = [text for text in obstacles(*pair) if "prefix caches" in text]
    told = [text for text in caveats(*pair) if "prefix caches" in text]
    assert ("prefix cache" in differences(pair)) == (ours is not theirs)
    assert len(set(line_names(pair))) == 1 + (ours is not theirs)
    is_warm = [use in (CacheUse.WARM, CacheUse.STARTED_WARM) for use in (ours, theirs)]
    if CacheUse.NOT_TOLD in (ours, theirs):
        assert not named
        assert bool(told) == any(is_warm)
    elif ours is theirs:
        assert not named and not told
    elif is_agents and CacheUse.STARTED_WARM not in (ours, theirs):
        assert not named and told  # the cache is the server's own merit
    else:
        assert named
    if named:
        verdict = judge([pair[0]], [pair[1]], 1.0, is_given_concurrency=True)
        assert verdict.outcome is Outcome.NOT_COMPARABLE


def test_shares_that_differ_are_named():
    agents = [run(lambda i, n=n: n if i else 0, is_agents=True) for n in (9, 4)]
    (text,) = [text for text in caveats(*agents) if "prefix caches" in text]
    shares = [cached_share(one.requests) for one in agents]
    assert f"{shares[0]:.0%} of the candidate's" in text
    assert f"{shares[1]:.0%} of the baseline's" in text


def test_other_conversations_are_another_load():
    """What a turn adds may be equal where the conversations are not; a template adds its own."""
    agents = run(WARM, is_agents=True)
    assert obstacles(agents, agents) == []
    for change in ({"num_turns": 3}, {"system_tokens": 1}, {"think_s": 1.0}, {"trace": "ab"}):
        sessions = SESSIONS.model_copy(update=change)
        load = agents.workload.model_copy(update={"sessions": sessions})
        other = agents.model_copy(update={"workload": load})
        (text,) = obstacles(agents, other)
        assert text.startswith("the load differs: 12 turns of 10 in")
    (text,) = obstacles(agents, run(WARM))
    assert text.startswith("the load differs")


def test_a_sweep_of_agents_is_one_line():
    """More users and other shares do not make another line; the cache's use does."""
    load = RUN.workload.model_copy(update={"concurrency": 9})
    runs = [
        run(WARM),
        run(lambda i: 8 if i else 0),
        run(WARM).model_copy(update={"workload": load}),
    ]
    assert len(set(line_names(runs))) == 1
    assert identity(runs[0])["prefix cache"] == "warm"
    assert "prefix cache" not in identity(run(NOT_TOLD))
