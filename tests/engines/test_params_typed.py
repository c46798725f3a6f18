"""Settings from Python: what means something is taken, and nothing is taken for something else."""

import math
from typing import Any

import numpy as np
import pytest

from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.errors import ConfigError


def params(**given: Any) -> SamplingParams:
    return SamplingParams(**given)


def test_one_text_is_one_stop_string() -> None:
    """Not one for each of its letters, at the first of which an answer would end."""
    assert params(stop="END").stop == ("END",)
    assert params(stop=["a", "END"]).stop == ("a", "END")


def test_what_other_libraries_take_means_the_same() -> None:
    made = params(
        max_tokens=np.int64(5),
        temperature=np.float32(0.5),
        stop_token_ids=np.array([1, 2]),
        logit_bias={7: 1, 8: -0.5},
    )
    same = params(
        max_tokens=5, temperature=0.5, stop_token_ids=(1, 2), logit_bias=((7, 1), (8, -0.5))
    )
    assert made == same and hash(made) == hash(same)
    assert {type(made.max_tokens), *map(type, made.stop_token_ids)} == {int}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": "16"},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"max_tokens": None},
        {"temperature": math.nan},
        {"temperature": "hot"},
        {"top_p": math.nan},
        {"min_p": math.nan},
        {"presence_penalty": math.nan},
        {"repetition_penalty": math.inf},
        {"seed": -1},
        {"seed": 2**64},
        {"seed": 1.0},
        {"top_k": -1},
        {"ignore_eos": "no"},
        {"ignore_eos": 0},
        {"stop": 5},
        {"stop": [b"END"]},
        {"stop": ""},
        {"stop": None},
        {"stop_token_ids": 2},
        {"stop_token_ids": "2"},
        {"stop_token_ids": [1.0]},
        {"logit_bias": {"7": 1}},
        {"logit_bias": [7]},
        {"logit_bias": {7: math.nan}},
        {"logprobs": 1.5},
        {"logprobs": True},
    ],
    ids=str,
)
def test_what_means_nothing_is_refused_by_name(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"^{name} must be"):
        params(**wrong)


def test_tokens_that_the_vocabulary_lacks_are_refused() -> None:
    for wrong in ({"stop_token_ids": [512]}, {"stop_token_ids": [-1]}, {"logit_bias": {512: 1.0}}):
        with pytest.raises(ConfigError, match="ids must be 0 to 511"):
            params(**wrong).check_ids(512)
