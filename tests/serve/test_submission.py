"""Input tensors: each has an effect, can't change the answer, or is refused by name."""

from typing import Any

import pytest

from nemotrt.engines.sampling import SamplingParams
from nemotrt.errors import ConfigError
from nemotrt.serve.submission import Inputs, read_inputs, sampling_params
from nemotrt.serve.triton_model.tensors import INPUTS, input_value


def params(**tensors: Any) -> SamplingParams:
    """What the engine is asked for; a tensor's elements are a list or one value."""
    values = {
        name: input_value(name, value if isinstance(value, list) else [value])
        for name, value in tensors.items()
    }
    return sampling_params(read_inputs({"text_input": "x", **values}, max_seq_len=1024), 3, 100, 50)


def test_the_wire_and_the_model_have_the_same_tensors() -> None:
    assert list(Inputs.model_fields) == [spec.name for spec in INPUTS]


@pytest.mark.parametrize(
    "tensors",
    [
        {"bad_words": b"", "stop_words": b""},  # Source: README of NVIDIA's tensorrtllm_backend
        {"bad_words": [], "stop_words": []},
        {"bad_words": [b"", b""], "stop_words": [b"", b""]},
        {"pad_id": 2},
        {"pad_id": -1},
        {"length_penalty": 1.0, "beam_width": 1, "num_return_sequences": 1},
        {"guided_decoding_guide_type": b"", "guided_decoding_guide": b""},
        {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0},
        {"top_k": 0, "top_p": 1.0},
        {"min_tokens": 0},
        {"num_top_log_probs": 0},
    ],
)
def test_empty_and_neutral_tensors_change_nothing(tensors) -> None:
    assert params(**tensors) == params()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"bad_words": [b"", b"x"]}, "bad_words is not supported"),
        ({"length_penalty": 2.0}, "length_penalty is not supported"),
        ({"beam_width": 2}, "beam_width above 1 is not supported"),
        ({"num_return_sequences": 2}, "num_return_sequences above 1 is not supported"),
        (
            {"guided_decoding_guide": b"{}"},
            "guided_decoding_guide needs guided_decoding_guide_type",
        ),
    ],
)
def test_what_no_engine_here_does_is_refused_by_name(tensors, message) -> None:
    with pytest.raises(ConfigError, match=message):
        params(**tensors)


def test_tensors_with_an_effect() -> None:
    assert params(stop_words=[b"", b"a", b"b"]).stop == ("a", "b")
    assert params(end_id=7, stop_token_ids=[8]).stop_token_ids == (8, 7)
