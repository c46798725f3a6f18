"""From a scheduler's updates to the output tensors that a client asked for."""

import math
from typing import Any

from nemotrt.engines.runtime.request import PromptToken, Token, Update
from nemotrt.engines.text.reasoning import TraceCounter
from nemotrt.serve.engine.submission import Submission
from nemotrt.wire.tensors import as_fp32, merge

Fields = dict[str, Any]


class Delivery:
    """Turns one request's updates into fields; without `stream`, into one set at the end."""

    def __init__(self, submission: Submission) -> None:
        """Start with nothing produced."""
        self._sent_s = -math.inf
        self._inputs = submission.inputs
        self._num_input_tokens = len(submission.request.prompt)
        self._num_cached_tokens: int | None = None  # not known yet, or nothing is kept
        self._num_output_tokens = 0
        self._trace: TraceCounter | None = None
        if submission.inputs.return_num_reasoning_tokens:
            self._trace = TraceCounter(submission.turn.chat, submission.turn.trace)
        self._log_probs: list[float | None] = []  # None: TensorRT-LLM has none of a forced token
        self._held: Fields = {"text_output": submission.prompt_text, **self._count_fields()}

    def fields(self, update: Update, now_s: float, interval_s: float) -> Fields | None:
        """Return what to send for `update`, None if nothing yet.

        The first token and the last go out at once, the others `interval_s` apart at least.
        """
        self._num_output_tokens += len(update.tokens)
        merge(self._held, {"text_output": update.text, **self._token_fields(update.tokens)})
        if update.prompt:
            self._held |= _prompt_fields(update.prompt)
        if update.cached_tokens is not None:
            self._num_cached_tokens = update.cached_tokens
            self._held |= self._count_fields()
        if update.finish_reason is not None:
            self._held |= self._last_fields(str(update.finish_reason))
        elif not self._inputs.stream or now_s < self._sent_s + interval_s:
            return None
        self._sent_s = now_s
        fields, self._held = self._held, {}
        return fields

    def _token_fields(self, tokens: tuple[Token, ...]) -> Fields:
        """Return the fields that say something of each token."""
        fields: Fields = {}
        if self._trace is not None:
            for token in tokens:
                self._trace.push(token.text)
        if self._inputs.return_progress:
            fields |= self._output_counts()
        if self._inputs.return_output_ids:
            fields["output_ids"] = [token.id for token in tokens]
        if self._inputs.return_log_probs:
            fields["output_log_probs"] = [as_fp32(token.logprob) for token in tokens]
            self._log_probs += fields["output_log_probs"]
            if self._inputs.num_top_log_probs:
                fields["top_log_prob_ids"] = [[i for i, _ in t.top_logprobs] for t in tokens]
                fields["top_log_probs"] = [[as_fp32(p) for _, p in t.top_logprobs] for t in tokens]
        return fields

    def _count_fields(self) -> Fields:
        """Return the prompt's length, and how much of it was kept, where that is known.

        The first response and the last one say so.
        """
        if not self._inputs.return_num_input_tokens:
            return {}
        counts = {"num_input_tokens": self._num_input_tokens}
        if self._num_cached_tokens is not None:
            counts["num_cached_tokens"] = self._num_cached_tokens
        return counts

    def _output_counts(self) -> Fields:
        """Return how many tokens there are so far, and how many of them are of the trace."""
        counts = {"num_output_tokens": self._num_output_tokens}
        if self._trace is not None:
            counts["num_reasoning_tokens"] = self._trace.num_tokens
        return counts

    def _last_fields(self, finish_reason: str) -> Fields:
        """Return the fields that come once, at the end."""
        fields: Fields = {"final": True, "finish_reason": finish_reason, **self._count_fields()}
        if self._inputs.return_num_output_tokens or self._inputs.return_progress:
            fields |= self._output_counts()
        if self._inputs.return_log_probs:
            known = [p for p in self._log_probs if p is not None]
            fields["cum_log_probs"] = sum(known) if len(known) == len(self._log_probs) else None
        return fields


def _prompt_fields(prompt: tuple[PromptToken, ...]) -> Fields:
    """Return the fields of a prompt's log-probabilities; nothing scores its first token."""
    fields: Fields = {"prompt_ids": [token.id for token in prompt]}
    scores = [token.score for token in prompt if token.score is not None]
    fields["prompt_log_probs"] = [as_fp32(score.logprob) for score in scores]
    fields["prompt_log_prob_ranks"] = [score.rank for score in scores]
    if any(score.top_logprobs for score in scores):
        fields["top_prompt_log_prob_ids"] = [[i for i, _ in s.top_logprobs] for s in scores]
        fields["top_prompt_log_probs"] = [[as_fp32(p) for _, p in s.top_logprobs] for s in scores]
    return fields


def failure(code: str, message: str) -> Fields:
    """Return the last fields of a request that failed."""
    return {"final": True, "error": {"code": code, "message": message}}


def outcome_of(fields: Fields) -> str:
    """Return how a request ended, by its last fields: its finish reason, or its error's code."""
    return str(fields["error"]["code"] if "error" in fields else fields.get("finish_reason"))
