"""A grammar's guide: begun again, broken, and beside others at one time."""

import json
from typing import Any

import jsonschema
import numpy as np

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.runtime.request import FinishReason
from nemotrt.engines.runtime.sampling.guide import Allowed, Broken, Complete, Guide, Rule, rules
from nemotrt.engines.runtime.sampling.thinking_budget import AfterThinking, ThinkingBudget
from nemotrt.engines.text.reasoning import Trace
from support.grammars import KINDS, PAIR, run


def test_text_before_the_first_token(tokenizer, grammars) -> None:
    """What follows `</think>` in the token that closes the trace belongs to the answer."""
    for before in ('{"', "\n\n{", "{", "", "\n", '{"a": true, "b": "red"'):
        guide = grammars.guide("json_schema", json.dumps(PAIR))
        guide.push_text(before)
        text, reason, _ = run(tokenizer, guide)
        assert reason is FinishReason.STOP
        jsonschema.validate(json.loads(before + text), PAIR)
    guide = grammars.guide("regex", "\n\nyes|no")
    guide.push_text("\n\n")
    assert run(tokenizer, guide)[0] == "yes"
    guide = grammars.guide("regex", "(yes|no)")
    guide.push_text("yes")
    assert isinstance(guide.rule(), Complete)
    guide.push_text("!")
    rule = guide.rule()
    assert isinstance(rule, Broken) and "'!'" in rule.reason
    guide = grammars.guide("json_schema", json.dumps(PAIR))
    guide.push_text(">>")
    assert run(tokenizer, guide)[1:] == (
        FinishReason.ERROR,
        "the answer begins with '>>', which its grammar does not allow.",
    )


def test_a_restarted_grammar_begins_again(tokenizer, grammars) -> None:
    guide = grammars.guide("json_schema", json.dumps(PAIR))
    for before in ('{"a": ', '{"a": true, "b": "red"}', ">>", ""):
        guide.push_text(before)
        guide.restart()
        assert isinstance(guide.rule(), Allowed)
    text, reason, _ = run(tokenizer, guide)
    assert reason is FinishReason.STOP
    jsonschema.validate(json.loads(text), PAIR)


class PanicException(BaseException):
    """As pyo3 raises it: no Exception."""


class Panics:
    """A matcher whose library fails in Rust."""

    def is_error(self) -> bool:
        return False

    def is_stopped(self) -> bool:
        raise PanicException("index out of bounds")

    def consume_token(self, token: int) -> bool:
        raise PanicException("index out of bounds")

    def validate_tokens(self, tokens: list[int]) -> int:
        raise PanicException("index out of bounds")


def test_a_panic_costs_its_own_request(tokenizer, grammars) -> None:
    for touch in ("rule", "push", "push_text"):
        guide = grammars.guide("regex", "a")
        guide.matcher = Panics()
        if touch == "push":
            guide.push(5, "")
        if touch == "push_text":
            guide.push_text("a")
        assert guide.rule() == Broken("the grammar failed: index out of bounds")


def told(rule: Rule) -> Any:
    """What a rule says, to be compared."""
    return ("allowed", rule.bits.tobytes()) if isinstance(rule, Allowed) else rule


def test_rules_at_one_time_are_each_guides_own(tokenizer, grammars) -> None:
    """Twins on one walk to their ends, one asked alone: of each kind, in traces, and broken."""

    def guides() -> list[Guide]:
        made: list[Guide] = [
            grammars.guide(kind, guide) for kind, guide, _ in KINDS.values() for _ in range(2)
        ]
        for trace in (Trace.BEFORE, Trace.CLOSED):
            thinking = ThinkingBudget(DEFAULT, 5, tokenizer.encode, trace)
            made.append(AfterThinking(thinking, grammars.guide("json_schema", json.dumps(PAIR))))
        broken = grammars.guide("regex", "(yes|no)")
        broken.push_text("maybe")
        erring, panicking = grammars.guide("regex", "a"), grammars.guide("regex", "a")
        erring.push(tokenizer.encode("b", add_special_tokens=False)[0], "b")
        panicking.matcher = Panics()
        return [*made, broken, erring, panicking, ThinkingBudget(DEFAULT, 0, tokenizer.encode)]

    random, together, alone = np.random.default_rng(5), guides(), guides()
    walking = list(range(len(alone) - 4))
    for _ in range(200):
        found = rules([*together, together[0]])
        assert [told(rule) for rule in found[:-1]] == [told(guide.rule()) for guide in alone]
        assert told(found[0]) == told(found[-1]) == told(together[0].rule())
        walking = [i for i in walking if isinstance(found[i], Allowed)]
        for i in walking:
            rule = found[i]
            assert isinstance(rule, Allowed)
            token = int(random.choice(np.flatnonzero(rule.mask)))
            for guide in (together[i], alone[i]):
                guide.push(token, tokenizer.decode([token], skip_special_tokens=False))
    assert len(walking) < 9, "most texts end"
    assert [type(rule) for rule in found[-5:-2]] == [Broken] * 3


def test_masks_are_made_ready_at_one_time(grammars) -> None:
    guides = [grammars.guide("regex", f"[a-z]{{{i}}}") for i in range(1, 9)]
    rules([guides[0]])  # alone, and asked already
    guides[0].batch.prepare(guides)
    assert all(guide.mask is not None and guide.mask.any() for guide in guides)
    assert not any(guide.needs_mask for guide in guides)
    guides[3].push(guides[3].rule().mask.argmax(), "")
    assert [guide.needs_mask for guide in guides] == [i == 3 for i in range(8)]
