"""Input tensors: each has an effect, can't change the answer, or is refused by name."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.errors import ConfigError
from nemotrt.serve.requests.inputs import Inputs, read_inputs
from nemotrt.serve.requests.sampling import sampling_params
from nemotrt.wire.tensors import INPUTS, input_value


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
        {"min_p": 0.0},
        {"logit_bias_ids": [], "logit_bias_values": []},
        {"embedding_bias_words": [], "embedding_bias_weights": []},
        {"embedding_bias_words": [b""]},
        {"embedding_bias_words": b"", "embedding_bias_weights": []},
    ],
)
def test_empty_and_neutral_tensors_change_nothing(tensors) -> None:
    assert params(**tensors) == params()


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"bad_words": [b"x" * 9000]}, "bad_words has 9000 characters"),
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
    assert params(min_p=0.5, temperature=0.25).min_p == 0.5
    assert (params(min_p=0.5).temperature, params().temperature) == (1, 0)
    biases = {"logit_bias_ids": [7, 0, 7], "logit_bias_values": [1.5, -100.0, 2.0]}
    assert params(**biases).logit_bias == ((7, 1.5), (0, -100.0), (7, 2.0))


def test_words_bias_each_of_their_tokens_and_need_a_tokenizer() -> None:
    words = {"embedding_bias_words": ["ab", "", "c"], "embedding_bias_weights": [1.0, 9.0, -2.0]}
    inputs = read_inputs({"text_input": "x", **words, "logit_bias_ids": [], "top_k": 0}, 1024)
    found = sampling_params(inputs, 3, 100, 128, lambda text: [ord(c) for c in text])
    assert found.logit_bias == ((97, 1.0), (98, 1.0), (99, -2.0))
    with pytest.raises(ConfigError, match="has no tokenizer; give logit_bias_ids"):
        sampling_params(inputs, 3, 100, 128)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"min_p": 1.5}, r"min_p must be 0 to 1, got 1\.5"),
        ({"logit_bias_ids": [1, 2], "logit_bias_values": [0.5]}, "has 2 entries and logit_bias_v"),
        ({"logit_bias_values": [0.5]}, "logit_bias_ids has 0 entries"),
        ({"logit_bias_ids": [50], "logit_bias_values": [0.5]}, "logit_bias ids must be 0 to 49"),
        ({"logit_bias_ids": [-1], "logit_bias_values": [0.5]}, "logit_bias ids must be 0 to 49"),
        ({"logit_bias_ids": [1] * 1025}, "logit_bias_ids has 1025 entries; the limit is 1024"),
        ({"embedding_bias_words": [b"a"]}, "embedding_bias_words has 1 entries"),
        ({"embedding_bias_weights": [1.0]}, "embedding_bias_words has 0 entries"),
    ],
)
def test_bad_numbers_and_biases_are_refused_by_name(tensors, message) -> None:
    with pytest.raises(ConfigError, match=message):
        params(**tensors)


@given(pairs=st.lists(st.tuples(st.integers(-3, 60), st.floats(width=32)), max_size=1030))
def test_any_biases_are_taken_as_they_are_or_refused(pairs) -> None:
    ids, values = [token for token, _ in pairs], [bias for _, bias in pairs]
    is_legal = len(pairs) <= 1024 and all(0 <= t < 50 and math.isfinite(b) for t, b in pairs)
    tensors = {"text_input": "x", "logit_bias_ids": ids, "logit_bias_values": values}
    if is_legal:
        found = sampling_params(read_inputs(tensors, 1024), 3, 100, 50)
        assert found.logit_bias == tuple(pairs)
        return
    with pytest.raises(ConfigError, match="logit_bias"):
        sampling_params(read_inputs(tensors, 1024), 3, 100, 50)
