"""Requests side by side, thinking budgets, cancellations, and what is refused."""

from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemotrt.engines.backends.tensorrt_llm.scheduler import LLMScheduler
from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.opening import OpenEngine
from nemotrt.engines.runtime.engine import Feed
from nemotrt.engines.runtime.request import FinishReason, Request, Update
from nemotrt.engines.runtime.sampling import thinking_budget
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.sampling.thinking_budget import AfterThinking, ThinkingBudget
from nemotrt.engines.runtime.scheduling.generation import collect
from nemotrt.errors import ConfigError
from support.llm_bundle import BUDGET, PROMPT, SHORT, run
from support.other_world import World

PENALIZED = SamplingParams(max_tokens=4, presence_penalty=0.5)


@settings(
    deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30)), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_requests_of_any_mix_do_not_disturb_each_other(
    lengths: list[tuple[int, int]], seed: int, opened: OpenEngine, cpu: OpenEngine
) -> None:
    requests = [
        Request(
            str(i),
            tuple((seed * 131 + i * 17 + j * 29) % 4096 for j in range(isl)),
            SamplingParams(max_tokens=osl, ignore_eos=True),
        )
        for i, (isl, osl) in enumerate(lengths)
    ]
    found = []
    for engine in (cpu, opened):
        scheduler, tokens = engine.scheduler(), {request.request_id: [] for request in requests}
        for request in requests:
            scheduler.submit(request)
        while not scheduler.is_idle:
            for update in scheduler.step():
                tokens[update.request_id] += [token.id for token in update.tokens]
        found.append(tokens)
    assert found[0] == found[1]


@pytest.mark.parametrize("budget", [0, 1, 7])
@pytest.mark.parametrize("max_tokens", [3, 8, 30])
def test_a_thinking_budget_is_kept_by_a_second_request(
    budget: int,
    max_tokens: int,
    opened: OpenEngine,
    cpu: OpenEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The closing tag is due at once, in the middle, or cut short by max_tokens."""
    monkeypatch.setattr(thinking_budget, "GRACE_TOKENS", 2)
    found = []
    for engine in (cpu, opened):
        tokenizer = engine.tokenizer
        assert tokenizer is not None
        thinking = ThinkingBudget(
            DEFAULT, budget, partial(tokenizer.encode, add_special_tokens=False)
        )
        params = SamplingParams(max_tokens=max_tokens, min_tokens=2, ignore_eos=True)
        scheduler = engine.scheduler()
        scheduler.submit(Request("r", PROMPT, params, thinking))
        updates: list[Update] = []
        while not scheduler.is_idle:
            updates += scheduler.step()
        found.append(collect(updates, 5))
    assert found[0] == found[1]
    if max_tokens == 30:
        assert "</think>" in found[1]["text"]


def test_a_cancelled_request_ends_at_once_and_says_no_more(opened: OpenEngine) -> None:
    scheduler = opened.scheduler()
    params = SamplingParams(max_tokens=80, ignore_eos=True)
    scheduler.submit(Request("a", PROMPT, params))
    scheduler.submit(Request("b", PROMPT, params))
    updates: list[Update] = []
    while sum(len(update.tokens) for update in updates if update.request_id == "a") < 3:
        updates = [*updates, *scheduler.step()]
    scheduler.cancel("a")
    scheduler.cancel("a")
    scheduler.cancel("never there")
    assert list(scheduler.running) == ["b"]
    later: list[Update] = []
    while not scheduler.is_idle:
        later += scheduler.step()
    assert [u.finish_reason for u in later if u.request_id == "a"] == [FinishReason.CANCELLED]
    tokens = [t.id for u in (*updates, *later) if u.request_id == "b" for t in u.tokens]
    assert tokens == [t["id"] for t in run(opened, max_tokens=80, ignore_eos=True)["tokens"]]


def test_a_request_that_is_cancelled_as_soon_as_it_came_reaches_the_llm(
    opened: OpenEngine, world: World
) -> None:
    """Else the LLM would run it to its end for nobody."""
    scheduler, num_before = opened.scheduler(), world.num_aborted
    for number in range(20):
        scheduler.submit(Request(str(number), PROMPT, SamplingParams(max_tokens=80)))
        scheduler.cancel(str(number))
    run(opened, max_tokens=2)  # behind them in the same queue
    assert world.num_aborted == num_before + 20


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("r", ()), "empty"),
        (Request("r", (4096,)), "0 to 4095"),
        (
            Request("r", PROMPT, SamplingParams(max_tokens=4, logit_bias=((4096, 1.0),))),
            "logit_bias ids must be 0 to 4095",
        ),
        (Request("r", PROMPT, SamplingParams(max_tokens=92)), "is 97 tokens; the engine holds 96"),
        (Request("r", PROMPT, SHORT, AfterThinking(BUDGET, BUDGET)), "no guided decoding"),
        (Request("r", PROMPT, PENALIZED, BUDGET), "exclude max_thinking_tokens"),
    ],
)
def test_what_it_can_not_run_is_refused(
    request_: Request, message: str, opened: OpenEngine
) -> None:
    scheduler = opened.scheduler()
    with pytest.raises(ConfigError, match=message):
        scheduler.submit(request_)
    assert scheduler.is_idle


def test_an_id_in_use_is_refused(opened: OpenEngine) -> None:
    scheduler = opened.scheduler()
    request = Request("r", PROMPT, SHORT)
    scheduler.submit(request)
    with pytest.raises(ConfigError, match="in use"):
        scheduler.submit(request)
    scheduler.cancel("r")


def test_there_are_no_slots_and_no_logits(opened: OpenEngine) -> None:
    engine = opened.engine
    for call in (
        engine.allocate,
        lambda: engine.release(0),
        lambda: engine.held_tokens(0),
        lambda: engine.step([Feed(0, [1])]),
    ):
        with pytest.raises(ConfigError, match="takes whole requests"):
            call()


@pytest.mark.parametrize("reuses", [False, True])
def test_a_salt_goes_where_prefixes_are_reused(opened: OpenEngine, reuses: bool) -> None:
    """Else the library, whose oldest versions know none, has nothing to keep apart."""
    engine: Any = opened.engine
    scheduler = LLMScheduler(engine, engine.process, reuses_prefixes=reuses)
    salt = f"salt-{reuses}"
    scheduler.submit(Request("r", PROMPT, SHORT, salt=salt))
    updates: list[Update] = []
    while not scheduler.is_idle:
        updates += scheduler.step()
    assert sum(len(update.tokens) for update in updates) == SHORT.max_tokens
    assert (f"salt {salt}" in engine.process._last_words.lines()) is reuses
