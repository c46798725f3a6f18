"""Stop strings of a bundle end where those of our engines end."""

from functools import partial

import pytest

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.opening import OpenEngine
from nemotrt.engines.runtime.request import Request, Update
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.sampling.thinking_budget import ThinkingBudget
from nemotrt.engines.runtime.scheduling.generation import collect
from nemotrt.engines.text.reasoning import Trace
from support.llm_bundle import PROMPT, some_text


@pytest.mark.parametrize("min_tokens", [0, 4, 9, 15])
@pytest.mark.parametrize("trace", list(Trace))
def test_stop_strings_count_where_ours_count_them(
    min_tokens: int, trace: Trace, opened: OpenEngine, cpu: OpenEngine
) -> None:
    text = some_text(cpu)
    params = SamplingParams(
        max_tokens=30, min_tokens=min_tokens, ignore_eos=True, stop=(text[4:6], text[12:14])
    )
    found = []
    for engine in (cpu, opened):
        scheduler, updates = engine.scheduler(), []
        scheduler.submit(Request("r", PROMPT, params, trace=trace))
        while not scheduler.is_idle:
            updates += scheduler.step()
        found.append(collect(updates, 5))
    assert found[0] == found[1]
    assert found[0]["finish_reason"] == ("length" if trace is Trace.OPEN else "stop")


@pytest.mark.parametrize("stop", ["\n\n", "</think>"])
def test_a_forced_tag_stops_nothing(stop: str, opened: OpenEngine) -> None:
    tokenizer, scheduler = opened.tokenizer, opened.scheduler()
    assert tokenizer is not None
    thinking = ThinkingBudget(DEFAULT, 0, partial(tokenizer.encode, add_special_tokens=False))
    params = SamplingParams(max_tokens=8, ignore_eos=True, stop=(stop,))
    scheduler.submit(Request("r", PROMPT, params, thinking))
    updates: list[Update] = []
    while not scheduler.is_idle:
        updates += scheduler.step()
    assert "".join(update.text for update in updates).startswith("</think>\n\n")
