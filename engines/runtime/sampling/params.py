"""From logits to a token: penalties, temperature, min-p, top-k, top-p, and log-probabilities.

Logits are finite: no backend masks a token by minus infinity, so whatever is not finite is a fault
of the engine, which the scheduler ends the request by. Only the sampler masks.

A token's weight is e^((score - greatest) / temperature) in float32. Tokens stand in the order of
their weights, ties by index; min_p, top_k and top_p each keep a prefix of that order (top_p of the
mass that the others left). The token is where a random number falls among the weights of the kept
ones, in the order of their indices. Token number n of a request takes the number of Philox4x64-10
with the seed as key and n as counter, so that it depends on nothing else.

`Sampler` is this definition in NumPy: slow, the oracle of the compiled one (`draws.py`), and what
runs where there is no compiler.
"""

import math
import os
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from nemotrt.engines.runtime.sampling.limits import MAX_BIASES
from nemotrt.engines.runtime.sampling.typed import typed
from nemotrt.errors import ConfigError
from nemotrt.wire.request import NUMBERS, RANGES, SamplingNumbers

Floats = npt.NDArray[np.float32]
Scores = npt.NDArray[np.floating]  # float64 where penalties have changed the logits
LARGEST = 1e300  # sums and differences of such scores are finite


@dataclass(frozen=True, slots=True)
class SamplingParams(SamplingNumbers):
    """How the tokens of one request are chosen, and when it stops.

    Temperature, min_p, top_k and top_p apply in this order, after the penalties and biases.

    Attributes:
        max_tokens: generated tokens at most, 0 or more; 0 scores the prompt alone.
        min_tokens: tokens before which no end token and no stop token is chosen.
        temperature: divides the logits; 0 takes the likeliest token (greedy).
        top_k: keeps the k likeliest tokens; 0 keeps all.
        top_p: keeps the likeliest tokens that together have this probability, above 0; 1 keeps all.
        min_p: keeps tokens with at least this share of the likeliest one's probability, 0 to 1.
        repetition_penalty: factor against tokens of the prompt or the output, above 0; 1 is off.
        presence_penalty: subtracted from the logit of each token in the output, -2 to 2.
        frequency_penalty: subtracted from a token's logit for each time in the output, -2 to 2.
        seed: 0 to 2^64 - 1; the same seed gives the same tokens. None: another one every time.
        logit_bias: token id -> what is added to its logit; a mapping or pairs, 1024 at most.
        stop: texts that end the answer; one text or several.
        include_stop_str_in_output: the text keeps the stop string that ended it.
        skip_special_tokens: the text leaves special tokens out; False shows them.
        stop_token_ids: token ids that end the answer.
        ignore_eos: the model's end token does not end the answer.
        logprobs: natural log-probabilities of each generated token and of the N likeliest, 0 to
            100; None: none.
        prompt_logprobs: the same of each prompt token.

    Raises:
        ConfigError: a value has another type, or is out of range.
    """

    max_tokens: int = 128
    min_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    stop: tuple[str, ...] = ()
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True  # false: the text shows them
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None  # None: none; N: the chosen token's and the N likeliest
    prompt_logprobs: int | None = None  # the same of each prompt token

    def __post_init__(self) -> None:
        """Check every value's type and range."""
        for item in fields(self):
            value = typed(item.name, item.type, getattr(self, item.name))
            object.__setattr__(self, item.name, value)
        self._require("max_tokens", self.max_tokens >= 0, "0 (the prompt alone) or more")
        self._require("min_tokens", 0 <= self.min_tokens <= self.max_tokens, "0 to max_tokens")
        for name, told in (RANGES | NUMBERS).items():
            value = getattr(self, name, None)
            self._require(name, value is None or told.allows(value), told.legal)
        for name in ("logprobs", "prompt_logprobs"):
            num_top = getattr(self, name)
            self._require(name, num_top is None or 0 <= num_top <= 100, "0 to 100")
        self._require("stop", all(self.stop), "non-empty strings")
        is_finite = all(math.isfinite(bias) for _, bias in self.logit_bias)
        self._require("logit_bias", is_finite, "of finite numbers")
        if len(self.logit_bias) > MAX_BIASES:
            raise ConfigError(
                f"logit_bias takes at most {MAX_BIASES} tokens, got {len(self.logit_bias)}."
            )

    def check_ids(self, vocab_size: int) -> None:
        """Raise ConfigError for a token that the vocabulary lacks, biased or to stop at."""
        for name, ids in (
            ("logit_bias", [token for token, _ in self.logit_bias]),
            ("stop_token_ids", self.stop_token_ids),
        ):
            if not all(0 <= token < vocab_size for token in ids):
                raise ConfigError(f"{name} ids must be 0 to {vocab_size - 1}.")

    def _require(self, name: str, is_valid: bool, legal: str) -> None:
        if not is_valid:
            raise ConfigError(f"{name} must be {legal}, got {getattr(self, name)!r}.")

    @property
    def has_penalties(self) -> bool:
        """Whether the tokens so far, or a bias, change the logits."""
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        return penalties != (1, 0, 0) or bool(self.logit_bias)


@dataclass(frozen=True, slots=True)
class Score:
    """What the model's own distribution says of a token, before penalties and temperature.

    Attributes:
        logprob: the natural log-probability.
        rank: 1 for the likeliest token.
        top_logprobs: (token id, log-probability) of the likeliest tokens, highest first.
    """

    logprob: float
    rank: int
    top_logprobs: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A chosen token; the log-probabilities are of the model's own distribution, if asked for."""

    token: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses one sequence's tokens; its random stream depends on its own seed alone."""

    def __init__(self, params: SamplingParams, prompt: npt.NDArray[np.int64], eos: tuple[int, ...]):
        """Start a sequence; `eos` tokens are forbidden until `min_tokens` are out."""
        self.params = params
        self._seed = seed_of(params)
        self._prompt = np.unique(prompt)
        self._forbidden_early = np.array(sorted({*eos, *params.stop_token_ids}), np.int64)
        self._counts: dict[int, int] = {}
        self._num_chosen = 0

    def choose(
        self,
        logits: Floats,
        forced: int | None = None,
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> SampledToken:
        """Return the next token for `logits` [vocab], and remember it.

        Args:
            logits: the model's own, all finite.
            forced: the token to return whatever the logits say.
            allowed: [vocab] which tokens may be chosen; at least one.
        """
        token = self._pick(logits, allowed) if forced is None else forced
        self._counts[token] = self._counts.get(token, 0) + 1
        self._num_chosen += 1
        if self.params.logprobs is None:
            return SampledToken(token)
        found = score(logits, token, self.params.logprobs)
        return SampledToken(token, found.logprob, found.top_logprobs)

    def _pick(self, logits: Floats, allowed: npt.NDArray[np.bool_] | None) -> int:
        """Return the likeliest or a drawn token of those that are allowed."""
        scores = self._penalized(logits) if self.params.has_penalties else logits
        if allowed is not None:
            scores = np.where(allowed, scores, -np.inf)
        if self._num_chosen < self.params.min_tokens and self._forbidden_early.size:
            scores = self._without_early_ends(scores)
        return self._draw(scores) if self.params.temperature > 0 else int(scores.argmax())

    def _penalized(self, logits: Floats) -> Scores:
        """Return the logits with penalties applied, as finite as they were."""
        params = self.params
        scores = logits.astype(np.float64)
        chosen = np.fromiter(self._counts, np.int64, len(self._counts))
        if params.repetition_penalty != 1:
            seen = np.union1d(self._prompt, chosen)
            factor, old = params.repetition_penalty, scores[seen]
            with np.errstate(over="ignore"):  # a factor of 1e-300 goes past float64's range
                new = np.where(old > 0, old / factor, old * factor)
            scores[seen] = np.clip(new, -LARGEST, LARGEST)
        if chosen.size:
            counts = np.fromiter(self._counts.values(), np.float64, len(self._counts))
            scores[chosen] -= params.presence_penalty + params.frequency_penalty * counts
        for token, bias in params.logit_bias:
            scores[token] += bias
        return scores

    def _without_early_ends(self, scores: Scores) -> Scores:
        """Forbid what would end the text; where nothing else may come, the end wins."""
        rest = scores.copy()
        rest[self._forbidden_early] = -np.inf
        return rest if rest.max() > -np.inf else scores

    def _draw(self, scores: Scores) -> int:
        """Sample after temperature, min-p, top-k and top-p, in that order."""
        params = self.params
        distances = scores.astype(np.float64) - scores.max()
        with np.errstate(over="ignore"):  # a temperature of 1e-300 leaves the likeliest alone
            weights = np.exp(distances / params.temperature).astype(np.float32).astype(np.float64)
        order = likeliest(weights, weights.size)
        weights = weights[order]
        weights = weights[weights >= np.float32(params.min_p)][: params.top_k or None]
        cumulative = np.cumsum(weights)
        # the smallest set whose mass reaches top_p: keep a token while the mass before it is below
        num_kept = np.count_nonzero(cumulative - weights < params.top_p * cumulative[-1])
        kept = np.zeros(scores.size)
        kept[order[:num_kept]] = weights[:num_kept]
        cumulative = np.cumsum(kept)
        point = uniform(self._seed, self._num_chosen) * cumulative[-1]
        found = np.searchsorted(cumulative, point, side="right")
        return int(min(found, np.flatnonzero(kept)[-1]))


def seed_of(params: SamplingParams) -> int:
    """Return the request's own seed, or one that nobody knows."""
    return int.from_bytes(os.urandom(8)) if params.seed is None else params.seed


def uniform(seed: int, position: int) -> float:
    """Return the random number of a request's token number `position`: [0, 1), 53 bits."""
    generator = np.random.Philox(key=seed, counter=position)
    return float(np.random.Generator(generator).random())


def is_finite(logits: Floats) -> bool:
    """Whether every logit of [vocab] is a finite number.

    The sum of squares tells it in 13 us for 131,072 logits, unless it overflows itself.
    Source: measured, 2 cores of a shared x86 server, 2026-11-29; `np.isfinite` takes 28 us.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares = float(np.dot(logits, logits))
    return math.isfinite(squares) or bool(np.isfinite(logits).all())


def score(logits: Floats, token: int, num_top: int) -> Score:
    """Return what `logits` [vocab] say of `token`, and of the `num_top` likeliest."""
    logprobs = log_softmax(logits)
    top = tuple((int(i), float(logprobs[i])) for i in likeliest(logprobs, num_top))
    return Score(float(logprobs[token]), 1 + int(np.count_nonzero(logits > logits[token])), top)


def log_softmax(logits: Floats) -> npt.NDArray[np.float64]:
    """Return the log-probabilities of `logits` [vocab]."""
    shifted = logits.astype(np.float64) - logits.max()
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result


def likeliest(scores: npt.NDArray[np.floating], count: int) -> npt.NDArray[np.int64]:
    """Return the indices of the `count` highest scores, highest first; ties by lower index."""
    count = min(count, scores.size)
    if count == 0:
        return np.empty(0, np.int64)
    if count < scores.size:
        threshold = np.partition(scores, scores.size - count)[scores.size - count]
        candidates = np.flatnonzero(scores >= threshold)
    else:
        candidates = np.arange(scores.size)
    order = np.argsort(-scores[candidates], kind="stable")[:count]
    result: npt.NDArray[np.int64] = candidates[order]
    return result
