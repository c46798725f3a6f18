"""The biases of logits that a request's tensors ask for: by token id, or by NVIDIA's words."""

from collections.abc import Callable, Sequence

from nemotrt.errors import ConfigError
from nemotrt.serve.requests.limits import MAX_BIAS_CHARACTERS, check_count

Biases = tuple[tuple[int, float], ...]
Encode = Callable[[str], Sequence[int]]


def biases_of_ids(ids: Sequence[int], values: Sequence[float]) -> Biases:
    """Return each id with its bias.

    Raises:
        ConfigError: there are not as many of both.
    """
    _check("logit_bias_ids", ids, "logit_bias_values", values)
    return tuple(zip(ids, values, strict=True))


def biases_of_words(
    words: Sequence[str], weights: Sequence[float], encode: Encode | None
) -> Biases:
    """Return each token of each word with the word's weight; empty words alone ask for nothing.

    Source: NVIDIA's tensorrtllm_backend, preprocessing/1/model.py, _get_embedding_bias; it also
    biases the special tokens that its tokenizer puts before a word.

    Raises:
        ConfigError: there are not as many of both, they are too long, or there is no tokenizer.
    """
    if not any(words) and not weights:
        return ()
    _check("embedding_bias_words", words, "embedding_bias_weights", weights)
    if encode is None:
        raise ConfigError(
            "the engine has no tokenizer; give logit_bias_ids, no embedding_bias_words."
        )
    check_count(
        "embedding_bias_words", sum(map(len, words)), MAX_BIAS_CHARACTERS, "characters in all"
    )
    pairs = zip(words, weights, strict=True)
    return tuple((token, weight) for word, weight in pairs for token in encode(word))


def _check(left: str, many: Sequence[object], right: str, others: Sequence[float]) -> None:
    """Raise ConfigError unless there is one value for each."""
    if len(many) != len(others):
        raise ConfigError(
            f"{left} has {len(many)} entries and {right} {len(others)}; give one value for each."
        )
