"""Log-probabilities in the forms of the two endpoints.

A token is known by its id: its name is only what it is called. A name is the token's text, or
`bytes:` and its bytes in hexadecimal where they are no whole characters.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.openai.text_offsets import TextOffsets, prompt_offsets
from nemotrt.serve.front.upstream.upstream import Fields

Json = dict[str, Any]
Pair = tuple[int, float | None]


@dataclass(frozen=True, slots=True)
class TokenScore:
    """One token, its log-probability, and the likeliest tokens in its place."""

    token: int
    logprob: float | None  # None: nothing precedes it, or the engine has none of a forced token
    top: tuple[Pair, ...] = ()
    rank: int | None = None

    def with_own(self, num_top: int) -> list[Pair]:
        """Return the `num_top` likeliest tokens, and this one if it is not among them."""
        pairs = list(self.top[:num_top])
        if self.logprob is not None and self.token not in [token for token, _ in pairs]:
            pairs.append((self.token, self.logprob))
        return pairs


def chat_logprobs(fields: Fields, files: EngineFiles) -> Json | None:
    """Return a chat choice's `logprobs` for what the fields bring, None if they bring none."""
    if "output_log_probs" not in fields:
        return None
    entries = []
    for score in _output_scores(fields):
        pairs = score.with_own(len(score.top)) if score.top else []
        top = [_entry(token, logprob, files) for token, logprob in pairs]
        entries.append({**_entry(score.token, score.logprob, files), "top_logprobs": top})
    return {"content": entries, "refusal": None}


class CompletionLogprobs:
    """A completion choice's `logprobs`, part by part: an echoed prompt's, then the output's."""

    def __init__(
        self,
        num_top: int,
        prompt: str | list[int],
        echoed: str | None,
        *,
        skip_special_tokens: bool = True,
    ) -> None:
        """Start; `echoed` is the prompt's text, None if the choice does not show it."""
        self._num_top = num_top
        self._prompt = prompt
        self._echoed = echoed
        self._skip_special_tokens = skip_special_tokens
        self._offsets: TextOffsets | None = None

    def part(self, fields: Fields, files: EngineFiles) -> Json | None:
        """Return the part for what the fields bring, None if they bring none."""
        if "output_log_probs" not in fields and "prompt_ids" not in fields:
            return None
        places, scores = [], []
        if self._echoed is not None and "prompt_ids" in fields:
            scores = prompt_scores(fields)
            places = self._prompt_places(fields["prompt_ids"], files)
        if self._offsets is None:
            start, skip = len(self._echoed or ""), self._skip_special_tokens
            self._offsets = TextOffsets(files.tokenizer, start, skip_special_tokens=skip)
        for score in _output_scores(fields):
            scores.append(score)
            places.append(self._offsets.add(score.token))
        return {
            "tokens": [files.token_name(score.token) for score in scores],
            "token_logprobs": [score.logprob for score in scores],
            "top_logprobs": [self._top(score, files) for score in scores],
            "text_offset": places,
        }

    def _prompt_places(self, ids: list[int], files: EngineFiles) -> list[int]:
        """Return where the prompt's tokens stand in the echoed text."""
        if isinstance(self._prompt, str) and files.tokenizer is not None:
            return prompt_offsets(self._prompt, ids, files.tokenizer)
        offsets = TextOffsets(files.tokenizer, 0)
        return [offsets.add(token) for token in ids]

    def _top(self, score: TokenScore, files: EngineFiles) -> Json | None:
        """Return the likeliest tokens by name; None for the first token, which nothing precedes."""
        pairs = score.with_own(self._num_top)
        return _by_name(pairs, files) if pairs else None


def prompt_logprobs(fields: Fields, files: EngineFiles, num_top: int) -> list[Json | None]:
    """Return vLLM's `prompt_logprobs`: by id, the `num_top` likeliest and the token itself."""
    return [_by_id(score, files, num_top) for score in prompt_scores(fields)]


def prompt_scores(fields: Fields) -> list[TokenScore]:
    """Return the prompt's tokens; of the first one nothing is known but its id."""
    first, *rest = fields["prompt_ids"]
    scores = [TokenScore(first, None)]
    columns = (fields[name] for name in ("prompt_log_probs", "prompt_log_prob_ranks"))
    for position, (token, logprob, rank) in enumerate(zip(rest, *columns, strict=True)):
        top = _top(fields, position, "top_prompt_log_prob_ids", "top_prompt_log_probs")
        scores.append(TokenScore(token, logprob, top, rank))
    return scores


def _output_scores(fields: Fields) -> list[TokenScore]:
    """Return the generated tokens that the fields bring."""
    pairs = zip(fields.get("output_ids", ()), fields.get("output_log_probs", ()), strict=True)
    return [
        TokenScore(token, logprob, _top(fields, position, "top_log_prob_ids", "top_log_probs"))
        for position, (token, logprob) in enumerate(pairs)
    ]


def _top(fields: Fields, position: int, ids: str, log_probs: str) -> tuple[Pair, ...]:
    """Return the likeliest tokens at a position."""
    if ids not in fields:
        return ()
    return tuple(zip(fields[ids][position], fields[log_probs][position], strict=True))


def _by_name(pairs: Iterable[Pair], files: EngineFiles) -> Json:
    """Return log-probabilities by name; a token whose name is taken goes by its id."""
    named: Json = {}
    for token, logprob in pairs:
        name = files.token_name(token)
        named[f"token_id:{token}" if name in named else name] = logprob
    return named


def _by_id(score: TokenScore, files: EngineFiles, num_top: int) -> Json | None:
    """Return one token's entry of `prompt_logprobs`."""
    if score.logprob is None:
        return None
    ranks = {token: place for place, (token, _) in enumerate(score.top, 1)} | {
        score.token: score.rank
    }
    return {
        str(token): {
            "logprob": logprob,
            "rank": ranks[token],
            "decoded_token": files.token_name(token),
        }
        for token, logprob in score.with_own(num_top)
    }


def _entry(token: int, logprob: float | None, files: EngineFiles) -> Json:
    """Return one token's entry in a chat's log-probabilities."""
    own = files.token_bytes(token)
    return {
        "token": files.token_name(token),
        "logprob": logprob,
        "bytes": None if own is None else list(own),
    }
