"""Every field of the API has an effect, can't change the answer, or is refused by name."""

import itertools
import json
from typing import Any

import pytest

from nemotrt.serve.front.schema import requests as schema
from nemotrt.serve.front.schema.neutral import CHAT, COMPLETION
from support.saying_upstream import (
    CHAT_BODY,
    CHAT_VALUES,
    COMPLETION_BODY,
    COMPLETION_VALUES,
    ask,
    beside,
)

# Bounds of which another field's is the lower one, or which have nothing to bound; a forced call
# leaves no content that could have a format.
MASKED = {
    ("response_format", "response_format", "tool_choice"),
    ("response_format", "response_format", "function_call"),
    ("chat_template_kwargs", "reasoning_effort", "chat_template_kwargs"),
    ("reasoning_effort", "reasoning_effort", "chat_template_kwargs"),
    ("max_tokens", "max_tokens", "max_completion_tokens"),
    ("max_thinking_tokens", "max_thinking_tokens", "chat_template_kwargs"),
}
# What can't change an answer: names of whoever asks, and a guess at the answer.
IDLE = {"user", "metadata", "safety_identifier", "prompt_cache_key", "session_id", "prediction"}


def fields_of(model: type[schema.Sampling]) -> set[str]:
    return set(model.model_fields) - {"model", "messages", "prompt"}


@pytest.mark.parametrize(
    ("model", "values"),
    [(schema.ChatRequest, CHAT_VALUES), (schema.CompletionRequest, COMPLETION_VALUES)],
)
def test_the_sweeps_know_every_field(model, values) -> None:
    assert set(values) == fields_of(model)


CASES = [(CHAT_BODY, n) for n in CHAT_VALUES] + [(COMPLETION_BODY, n) for n in COMPLETION_VALUES]


@pytest.mark.parametrize(("body", "name"), CASES)
def test_each_field_alone_has_an_effect_or_is_refused(client, upstream, body, name) -> None:
    values = CHAT_VALUES if body is CHAT_BODY else COMPLETION_VALUES
    least = {**body, **beside(name, values)}
    plain = ask(client, upstream, least)
    found = ask(client, upstream, {**least, name: values[name]})
    assert plain[0] == 200 and found[0] in (200, 400)
    if name in IDLE:
        assert found == plain
    elif found[0] == 200:
        assert found[1:] != plain[1:], f"{name} has no effect"
    else:
        assert name in json.loads(found[2])["error"]["message"]


PAIRS = [
    (body, pair)
    for body, values in ((CHAT_BODY, CHAT_VALUES), (COMPLETION_BODY, COMPLETION_VALUES))
    for pair in itertools.combinations(values, 2)
]


def test_no_pair_of_fields_makes_a_fault_or_silences_one_of_them(client, upstream) -> None:
    """What a field changes alone, it changes beside any other field too, or the pair is a 400."""
    seen: dict[str, tuple[int, Any, Any]] = {}

    def asked(body: dict[str, Any]) -> tuple[int, Any, Any]:
        key = json.dumps(body, sort_keys=True)
        if key not in seen:
            seen[key] = ask(client, upstream, body)
        return seen[key]

    silent = []
    for body, (left, right) in PAIRS:
        values = CHAT_VALUES if body is CHAT_BODY else COMPLETION_VALUES
        company = beside(left, values) | beside(right, values)
        together = {**body, **company, left: values[left], right: values[right]}
        both = asked(together)
        assert both[0] in (200, 400), (left, right, both)
        if both[0] == 400:
            continue
        for name in {left, right} - IDLE:
            without = {k: v for k, v in together.items() if k != name} | {
                k: v for k, v in company.items() if k == name
            }
            if without != together and asked(without)[1:] == both[1:]:
                silent.append((name, left, right))
    assert set(silent) <= MASKED


NEUTRAL = [
    (body, name, value)
    for body, table in ((CHAT_BODY, CHAT), (COMPLETION_BODY, COMPLETION))
    for name, neutral in table.items()
    for value in neutral.values
]


@pytest.mark.parametrize(("body", "name", "value"), NEUTRAL)
def test_neutral_values_change_nothing(client, upstream, body, name, value) -> None:
    plain = ask(client, upstream, body)
    assert ask(client, upstream, {**body, name: value}) == plain
    assert ask(client, upstream, {**body, name: None}) == plain


@pytest.mark.parametrize(
    ("body", "name", "value"),
    [
        (COMPLETION_BODY, "best_of", True),
        (COMPLETION_BODY, "best_of", 2),
        (COMPLETION_BODY, "suffix", "x"),
        (COMPLETION_BODY, "use_beam_search", True),
        (COMPLETION_BODY, "length_penalty", 2),
        (COMPLETION_BODY, "anything", 1),
        (CHAT_BODY, "store", True),
        (CHAT_BODY, "service_tier", "flex"),
        (CHAT_BODY, "modalities", ["text", "audio"]),
    ],
)
def test_other_values_are_refused_by_name(client, upstream, body, name, value) -> None:
    status, _, text = ask(client, upstream, {**body, name: value})
    error = json.loads(text)["error"]
    assert (status, error["param"]) == (400, name)
    assert error["message"].startswith(f"{name} is not supported")
