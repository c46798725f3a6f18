"""A text under a grammar is whole, or says why it is not; nothing goes past its end."""

import json
from typing import Any

import jsonschema
import pytest

from nemotrt.engines.runtime.request import FinishReason, Request
from nemotrt.engines.runtime.sampling.guide import Allowed
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.errors import ConfigError
from nemotrt.serve.grammar.grammar import GrammarCompiler
from support.flat_engine import PADDING, FlatEngine
from support.grammars import KINDS, PAIR, TOOLS, parsed, run


def check_whole(text: str, wanted: Any) -> None:
    """Assert that a text is what its grammar promises, by readers that know no grammar."""
    if isinstance(wanted, set):
        assert text in wanted
        return
    if wanted == "calls" or (wanted == "calls or answer" and text.startswith("<")):
        calls = parsed(text)
        assert calls and {call["name"] for call in calls} <= {tool.name for tool in TOOLS}
        for call in calls:
            jsonschema.validate(json.loads(call["arguments"]), PAIR)
        return
    jsonschema.validate(json.loads(text), PAIR if wanted == "calls or answer" else wanted)
    assert text == text.strip()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", KINDS)
def test_a_complete_grammar_ends_the_request(tokenizer, grammars, name, seed) -> None:
    kind, guide, wanted = KINDS[name]
    text, reason, _ = run(tokenizer, grammars.guide(kind, guide), seed=seed)
    if name in ("json", "calls") and reason is FinishReason.LENGTH:
        return  # any object, any number of calls: an even draw may go on for long
    assert reason is FinishReason.STOP
    check_whole(text, wanted)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "change",
    [
        {"ignore_eos": True},
        {"min_tokens": 1500},
        {"min_tokens": 1500, "ignore_eos": True},
        {"temperature": 0.0},
        {"top_k": 1},
        {"repetition_penalty": 1.5, "presence_penalty": 2.0},
    ],
)
def test_nothing_of_the_sampling_goes_past_the_end(tokenizer, grammars, name, change) -> None:
    if name in ("json", "calls", "calls or answer"):
        change = {**change, "max_tokens": 1500}  # may rightly go on to the limit
    kind, guide, wanted = KINDS[name]
    text, reason, error = run(tokenizer, grammars.guide(kind, guide), **change)
    assert not error
    if reason is FinishReason.STOP:
        check_whole(text, wanted)
    else:
        assert name in ("json", "calls", "calls or answer")


@pytest.mark.parametrize("name", KINDS)
def test_truncated_is_length_and_full_length_is_stop(tokenizer, grammars, name) -> None:
    kind, guide, wanted = KINDS[name]
    num_tokens, rule = 0, grammars.guide(kind, guide).rule()
    assert isinstance(rule, Allowed)
    for num_tokens in range(1, 60):
        text, reason, _ = run(tokenizer, grammars.guide(kind, guide), max_tokens=num_tokens)
        if reason is FinishReason.STOP:
            check_whole(text, wanted)
            break
        assert reason is FinishReason.LENGTH
    if reason is FinishReason.STOP:  # one token less was too short, so this was exactly enough
        again = run(tokenizer, grammars.guide(kind, guide), max_tokens=num_tokens + 5)
        assert again[:2] == (text, FinishReason.STOP)


@pytest.mark.parametrize("name", KINDS)
def test_a_stop_string_ends_it_before(tokenizer, grammars, name) -> None:
    kind, guide, _ = KINDS[name]
    whole, *_ = run(tokenizer, grammars.guide(kind, guide), max_tokens=100)
    stop = whole[1:2]
    text, reason, _ = run(tokenizer, grammars.guide(kind, guide), max_tokens=100, stop=(stop,))
    assert (text, reason) == (whole[: whole.index(stop)], FinishReason.STOP)


def test_every_end_id_may_end_a_text(tokenizer) -> None:
    ends = (*tokenizer.eos_ids, 77, 10**6)  # one of config.json's, and one that no logit is for
    compiler = GrammarCompiler(tokenizer, tokenizer.vocab_size + PADDING, ends)
    for end in ends[:-1]:
        guide = compiler.guide("regex", "[ab]*")
        scheduler = Scheduler(
            FlatEngine(tokenizer.vocab_size, {end: 90.0}), tokenizer, eos_ids=ends
        )
        scheduler.submit(Request("r", (5,), SamplingParams(max_tokens=9), guide))
        [update] = [u for u in [*scheduler.step(), *scheduler.step()] if u.finish_reason]
        assert (update.finish_reason, update.text) == (FinishReason.STOP, ""), end


def test_padding_is_never_allowed(tokenizer, grammars) -> None:
    for lark in ("start: <[*]>", "start: <[100-4120]>", "start: /(?s:.)+/"):
        rule = grammars.guide("lark", lark).rule()
        assert isinstance(rule, Allowed) and not rule.mask[tokenizer.vocab_size :].any()
    with pytest.raises(ConfigError, match="allows no token"):
        grammars.guide("lark", f"start: <[{tokenizer.vocab_size}-{tokenizer.vocab_size + 9}]>")


def test_fewer_logits_than_ids(tokenizer) -> None:
    compiler = GrammarCompiler(tokenizer, 300, tokenizer.eos_ids)
    rule = compiler.guide("regex", "[a-z]+").rule()
    assert isinstance(rule, Allowed) and rule.mask.shape == (300,) and rule.mask.any()


def test_a_special_token_may_be_demanded(tokenizer, grammars) -> None:
    special = tokenizer.eos_ids[-1]
    text, reason, _ = run(tokenizer, grammars.guide("lark", f'start: "a" <[{special}]>'))
    assert (text, reason) == ("a", FinishReason.STOP)
    text, reason, _ = run(tokenizer, grammars.guide("lark", 'start: "a" <[3]> "b"'))
    assert reason is FinishReason.STOP and text.startswith("a") and text.endswith("b")
