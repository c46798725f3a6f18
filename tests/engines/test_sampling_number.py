"""The one description of sampling's plain numbers, and that every door takes each of them."""

import dataclasses
import math

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.engines.command import generate
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.errors import ConfigError
from nemotrt.serve.front.openai.inputs import completion_inputs
from nemotrt.serve.front.schema.requests import ChatRequest, CompletionRequest
from nemotrt.serve.requests.inputs import Inputs, read_inputs
from nemotrt.serve.requests.sampling import sampling_params
from nemotrt.wire import tensors
from nemotrt.wire.request import NUMBERS, RANGES, Number

NAMES = ["min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"]
# A value of each that is legal, exact in float32 and not the neutral one.
VALUES = dict(zip(NAMES, (0.25, 1.5, -1.25, 0.75), strict=True))


def test_which_there_are() -> None:
    assert list(NUMBERS) == NAMES
    assert {name: told.neutral for name, told in NUMBERS.items()} == {
        "min_p": 0,
        "repetition_penalty": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_door_has_each_number(name: str) -> None:
    """The names and neutral values of the doors follow from SamplingParams."""
    told = NUMBERS[name]
    [field] = [f for f in dataclasses.fields(SamplingParams) if f.name == name]
    assert field.default == told.neutral
    [option] = [o for o in generate.params if o.name == name]
    assert (option.default, option.opts) == (told.neutral, [f"--{name.replace('_', '-')}"])
    assert option.to_info_dict()["help"]
    assert tensors.INPUT_BY_NAME[name].type == "FP32"
    for schema in (ChatRequest, CompletionRequest, Inputs):
        assert schema.model_fields[name].get_default() == told.neutral


@pytest.mark.parametrize("name", NAMES)
def test_a_number_goes_from_the_api_to_the_sampler(name: str) -> None:
    body = {"model": "llm", "prompt": "x", name: VALUES[name], "temperature": 1}
    request = CompletionRequest.model_validate(body)
    inputs = completion_inputs(request, "x")
    params = sampling_params(read_inputs(inputs, 100), 3, 100, 50)
    assert {n: getattr(params, n) for n in NAMES} == {
        n: VALUES[n] if n == name else NUMBERS[n].neutral for n in NAMES
    }


@given(
    value=st.floats(),
    least=st.floats(-10, 10),
    width=st.floats(0, 10) | st.just(math.inf),
    is_above=st.booleans(),
)
def test_a_number_is_allowed_in_its_range_alone(
    value: float, least: float, width: float, is_above: bool
) -> None:
    number = Number(0.0, least, least + width, is_above, "")
    is_inside = least <= value <= least + width and value not in (math.inf, -math.inf)
    assert number.allows(value) == (is_inside and not (is_above and value == least))


@pytest.mark.parametrize(
    ("number", "legal"),
    [
        (Number(0, 0, 1, False, ""), "0 to 1"),
        (Number(0, -2, 2, False, ""), "-2 to 2"),
        (Number(1, 0, math.inf, True, ""), "above 0"),
        (Number(1, 0, 1, True, ""), "above 0, at most 1"),
        (Number(0, 0, math.inf, False, ""), "0 or more"),
        (RANGES["seed"], "0 to 18446744073709551615"),
    ],
)
def test_the_legal_values_in_words(number: Number, legal: str) -> None:
    assert number.legal == legal


@pytest.mark.parametrize("name", NAMES)
@given(value=st.floats() | st.sampled_from([0.0, -0.0, 1.0, -2.0, 2.0]))
def test_sampling_params_hold_to_the_range(name: str, value: float) -> None:
    if NUMBERS[name].allows(value):
        assert getattr(SamplingParams(**{name: value}), name) == value
        return
    with pytest.raises(ConfigError) as caught:
        SamplingParams(**{name: value})
    assert caught.value.message == f"{name} must be {NUMBERS[name].legal}, got {value!r}."


@pytest.mark.parametrize("schema", [ChatRequest, CompletionRequest])
@pytest.mark.parametrize("name", RANGES)
def test_what_the_api_takes_the_engine_takes(name: str, schema: type[pydantic.BaseModel]) -> None:
    """At every edge of the one range; the API adds -1 for no top_k, and seeds below 0."""
    told, body = RANGES[name], {"model": "llm", "prompt": "x", "messages": [{"role": "user"}]}
    body = {key: value for key, value in body.items() if key in schema.model_fields}
    num_taken = 0
    for edge in (told.least, told.most, 0, 1, 2, 2**31, 2**63, 2**64, math.inf, math.nan):
        for value in (edge - 1, edge, edge + 1):
            try:
                taken = getattr(schema.model_validate(body | {name: value}), name)
            except pydantic.ValidationError:
                continue
            num_taken += 1
            assert told.allows(taken) or (name, taken) == ("top_k", -1) or name == "seed"
    assert num_taken > 1
