"""The log-probabilities of a prompt's own tokens, taken from the logits as its chunks come in."""

from collections.abc import Callable, Sequence

from nemotrt.engines.runtime.request import PromptToken
from nemotrt.engines.runtime.sampling.params import Score

# Logits of one step that score prompts, 16 MiB: whatever its length, no more of a prompt's logits
# are held at once, and other requests' tokens wait no longer. One row always goes.
MAX_LOGITS_PER_STEP = 1 << 22


class PromptScores:
    """Scores each token by the row after the one before it; empty unless asked for."""

    def __init__(self, prompt: Sequence[int], num_top: int | None) -> None:
        """Start a prompt; `num_top` is how many likeliest tokens to keep, None for no scores."""
        self._prompt = prompt
        self._num_top = num_top
        self._tokens: list[PromptToken] = []

    @property
    def is_wanted(self) -> bool:
        """Whether every prompt token must bring logits."""
        return self._num_top is not None

    def begin(self, tokens: Sequence[PromptToken]) -> None:
        """Take what is known of the prompt's first tokens, the first one that is fed included."""
        self._tokens = list(tokens)

    def first(self, num_tokens: int) -> tuple[PromptToken, ...]:
        """Return the first tokens, as far as they are scored."""
        return tuple(self._tokens[:num_tokens])

    def add(
        self, start: int, num_rows: int, score: Callable[[Sequence[int], int], list[Score | None]]
    ) -> bool:
        """Take the logits after `num_rows` of the prompt's tokens from `start` on.

        Args:
            start: the first of the tokens.
            num_rows: how many of them bring logits.
            score: gives what their rows, from the first on, say of the tokens that follow them,
                with so many likeliest ones.

        Returns False if some are not finite.
        """
        if self._num_top is None:
            return True
        if start == 0:
            self._tokens.append(PromptToken(self._prompt[0], None))
        scored = self._prompt[start + 1 : start + 1 + num_rows]  # one fewer at the prompt's end
        if not scored:
            return True  # the sampler sees the last row
        scores = score(scored, self._num_top)
        self._tokens += map(PromptToken, scored, scores)
        return None not in scores

    def take(self) -> tuple[PromptToken, ...]:
        """Return the whole prompt, once."""
        if not self._tokens:
            return ()
        tokens, self._tokens = tuple(self._tokens), []
        return tokens
