"""Tokens, text and scores of a bundle over the stand-in of the LLM, held against the CPU engine."""

from types import SimpleNamespace
from typing import Any

import pytest

from nemotrt.engines.backends.tensorrt_llm.apart import service
from nemotrt.engines.backends.tensorrt_llm.sampling import sampling_fields
from nemotrt.engines.opening import OpenEngine
from nemotrt.engines.runtime.request import FinishReason, Request
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.generation import collect, generate
from nemotrt.errors import ConfigError
from nemotrt.wire.request import NUMBERS
from support.llm_bundle import BUDGET, PROMPT, run, some_text
from support.other_world import World


@pytest.mark.parametrize(
    "params",
    [
        {"max_tokens": 40},
        {"max_tokens": 24, "ignore_eos": True},
        {"max_tokens": 12, "repetition_penalty": 1.4, "ignore_eos": True},
        {"max_tokens": 12, "presence_penalty": 1.5, "frequency_penalty": -0.5, "ignore_eos": True},
        {"max_tokens": 60, "min_tokens": 50, "ignore_eos": True},
        {"max_tokens": 6, "logprobs": 0, "ignore_eos": True},
        {"max_tokens": 6, "logit_bias": ((700, 100.0),), "ignore_eos": True},
        {"max_tokens": 9, "logit_bias": ((5, 2.5), (5, 1.0), (9, -100.0)), "ignore_eos": True},
        {"max_tokens": 6, "temperature": 2.0, "seed": 1, "min_p": 1.0, "ignore_eos": True},
        {"max_tokens": 6, "logprobs": 3, "ignore_eos": True},
    ],
)
def test_greedy_tokens_and_text_are_the_cpu_engines(
    params: dict[str, Any], opened: OpenEngine, cpu: OpenEngine
) -> None:
    ours, theirs = run(cpu, **params), run(opened, **params)
    for mine, other in zip(ours["tokens"], theirs["tokens"], strict=True):
        assert other["logprob"] == pytest.approx(mine["logprob"])
        assert [t["id"] for t in other["top_logprobs"]] == [t["id"] for t in mine["top_logprobs"]]
    ids = [[token["id"] for token in found["tokens"]] for found in (ours, theirs)]
    assert ids[0] == ids[1]
    assert (theirs["text"], theirs["finish_reason"]) == (ours["text"], ours["finish_reason"])


def test_biases_are_a_finite_tensor_of_the_vocabulary() -> None:
    """By hand: those of a token add up; what float32 can't hold stays finite."""
    biases = ((0, 1.5), (3, -100.0), (0, 0.25), (2, 1e300), (1, -1e300))
    fields = sampling_fields(SamplingParams(logit_bias=biases), ())
    bias = service.make_params(SimpleNamespace, fields, 5).embedding_bias
    assert str(bias.dtype) == "torch.float32"
    assert bias.tolist() == pytest.approx([1.75, -1e30, 1e30, -100.0, 0.0])
    assert "embedding_bias" not in sampling_fields(SamplingParams(), ())


def test_every_plain_number_is_an_argument_of_tensorrt_llm_s(opened: OpenEngine) -> None:
    for name, told in NUMBERS.items():
        assert name not in sampling_fields(SamplingParams(), ())
        value = told.neutral + 0.5
        params = SamplingParams(max_tokens=2, **{name: value})
        assert sampling_fields(params, ())[name] == value
        [*_, update] = generate(opened.scheduler(), PROMPT, params)
        assert update.finish_reason is not FinishReason.ERROR, update.error


def test_a_field_that_a_version_has_not_is_its_request_s_fault(opened: OpenEngine) -> None:
    process = opened.engine.process  # type: ignore[attr-defined]
    number = process.start(PROMPT, {"max_tokens": 2, "of_next_year": 1})
    [news] = process.take(30)
    assert (news.number, news.fault.kind) == (number, "request")
    assert "of_next_year" in news.fault.message


@pytest.mark.parametrize("num_top", [0, 3])
@pytest.mark.parametrize("max_tokens", [0, 5])
def test_prompt_logprobs_are_the_cpu_engines(
    num_top: int, max_tokens: int, opened: OpenEngine, cpu: OpenEngine
) -> None:
    """From the context logits; it takes no max_tokens of 0, so what it then gives is dropped."""
    params = {"max_tokens": max_tokens, "prompt_logprobs": num_top, "ignore_eos": True}
    ours, theirs = run(cpu, **params), run(opened, **params)
    assert theirs == ours
    assert [token["id"] for token in theirs["prompt"]] == list(PROMPT)
    assert len(theirs["tokens"]) == max_tokens and theirs["finish_reason"] == "length"


def test_context_logits_that_are_not_the_prompts_fail_the_request(
    opened: OpenEngine, world: World
) -> None:
    """As of a library that reuses a prefix: its rows would be another token's."""
    params = SamplingParams(max_tokens=4, prompt_logprobs=1)
    with world.broken(context_rows=3):
        [update] = generate(opened.scheduler(), PROMPT, params)
    assert update.finish_reason is FinishReason.ERROR and "context logits" in update.error
    assert len(run(opened, max_tokens=4, ignore_eos=True)["tokens"]) == 4


def test_prompt_logprobs_and_a_budget_exclude_each_other(opened: OpenEngine) -> None:
    params = SamplingParams(max_tokens=4, prompt_logprobs=1)
    with pytest.raises(ConfigError, match="prompt_logprobs exclude max_thinking_tokens"):
        opened.scheduler().submit(Request("r", PROMPT, params, BUDGET))


def test_min_tokens_is_for_one_end(opened: OpenEngine, cpu: OpenEngine) -> None:
    """TensorRT-LLM forbids `end_id` alone: the model's three ends would end the text early."""
    with pytest.raises(ConfigError, match=r"has 3: 12, 2, 11\. Leave out min_tokens"):
        run(opened, max_tokens=60, min_tokens=50)
    ids = [t["id"] for t in run(cpu, max_tokens=30, ignore_eos=True)["tokens"]]
    one, other, *_ = dict.fromkeys(ids)
    with pytest.raises(ConfigError, match="this request has 2"):
        run(opened, max_tokens=30, min_tokens=9, ignore_eos=True, stop_token_ids=(one, other))
    for token in (one, other):  # one end is kept, whosever it is
        params = {"max_tokens": 30, "min_tokens": 9, "ignore_eos": True, "stop_token_ids": (token,)}
        assert run(opened, **params) == run(cpu, **params)


def test_a_stop_string_ends_the_text_and_frees_the_llm(opened: OpenEngine, cpu: OpenEngine) -> None:
    stop = some_text(cpu)[10:13]
    params = {"max_tokens": 40, "ignore_eos": True, "stop": (stop,)}
    assert run(opened, **params) == run(cpu, **params)
    assert run(opened, max_tokens=3)["usage"] == run(cpu, max_tokens=3)["usage"]


def test_an_end_token_that_the_llm_keeps_to_itself_is_no_loss(
    opened: OpenEngine, cpu: OpenEngine, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = run(cpu, max_tokens=40, ignore_eos=True)["tokens"][9]["id"]
    found = []
    for engine in (cpu, opened):
        scheduler = engine.scheduler()
        monkeypatch.setattr(scheduler, "eos_ids", (end,))
        params = SamplingParams(max_tokens=40)
        with world.broken(hides_end=True):
            found.append(collect(list(generate(scheduler, PROMPT, params)), 5))
    mine, other = found
    assert other["tokens"] == mine["tokens"][:-1]
    assert (other["text"], other["finish_reason"]) == (mine["text"], "stop")


def test_a_stop_token_is_reported_and_not_part_of_the_text(
    opened: OpenEngine, cpu: OpenEngine
) -> None:
    tokens = run(cpu, max_tokens=40, ignore_eos=True)["tokens"]
    params = {"max_tokens": 40, "ignore_eos": True, "stop_token_ids": (tokens[7]["id"],)}
    assert run(opened, **params) == run(cpu, **params)
