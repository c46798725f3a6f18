"""One step's tokens for all sequences together: compiled, or by NumPy where there is no compiler.

A sequence's settings and memory (`open`) are kept from step to step; each step gives the rows of
logits with the sequences and rules that they are for, and takes every choice at once.
"""

import ctypes
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.native.library.draw import (
    CDraw,
    DrawEngine,
    DrawStatus,
    address,
    padded_bits,
)
from nemotrt.engines.backends.native.library.library import InstructionSet
from nemotrt.engines.runtime.sampling.guide import FREE, Allowed, Forced, Rule
from nemotrt.engines.runtime.sampling.params import (
    Floats,
    SampledToken,
    Sampler,
    SamplingParams,
    Score,
    is_finite,
    score,
    seed_of,
)
from nemotrt.engines.runtime.sampling.token_bits import set_bits
from nemotrt.errors import EnvironmentUnfitError

MAX_THREADS = 8  # of the sampler's own, beside an engine that computes elsewhere
log = logging.getLogger("nemotrt.engine")


@dataclass(frozen=True, slots=True)
class Turn:
    """A sequence whose next token is due: its row of the logits, and what may come."""

    row: int
    draw: Any  # what open() gave
    rule: Rule = FREE


class Draws(Protocol):
    """Chooses tokens; not thread-safe."""

    def open(self, params: SamplingParams, prompt: Sequence[int], ends: tuple[int, ...]) -> Any:
        """Return a sequence's memory; `ends` may not come before `min_tokens` are out."""

    def choose(self, logits: Floats, turns: Sequence[Turn]) -> list[SampledToken | None]:
        """Return each sequence's next token and remember it; None if its logits are not finite.

        Args:
            logits: [rows, vocab] in float32.
            turns: the sequences; a rule allows at least one token.
        """

    def score(self, logits: Floats, tokens: Sequence[int], num_top: int) -> list[Score | None]:
        """Return the score of `tokens[i]` by row i [vocab] of the logits; None if not finite.

        There may be more rows than tokens.
        """


class NumpyDraws:
    """The definition itself, sequence after sequence."""

    def open(self, params: SamplingParams, prompt: Sequence[int], ends: tuple[int, ...]) -> Sampler:
        """Return a sequence's sampler."""
        return Sampler(params, np.array(prompt, np.int64), ends)

    def choose(self, logits: Floats, turns: Sequence[Turn]) -> list[SampledToken | None]:
        """Return each sequence's next token."""
        return [self._one(logits[turn.row], turn) for turn in turns]

    def score(self, logits: Floats, tokens: Sequence[int], num_top: int) -> list[Score | None]:
        """Return what each row says of its token."""
        rows = zip(logits, tokens, strict=False)
        return [score(row, token, num_top) if is_finite(row) else None for row, token in rows]

    def _one(self, row: Floats, turn: Turn) -> SampledToken | None:
        if not is_finite(row):
            return None
        match turn.rule:
            case Forced(token):
                choice: SampledToken = turn.draw.choose(row, forced=token)
            case Allowed() as allowed:
                choice = turn.draw.choose(row, allowed=allowed.mask)
            case _:
                choice = turn.draw.choose(row)
        return choice


class Draw:
    """A sequence's memory in C, and the arrays that it points to."""

    def __init__(
        self, params: SamplingParams, prompt: Sequence[int], ends: tuple[int, ...], vocab_size: int
    ) -> None:
        """Start a sequence."""
        self.c = CDraw(
            seed=seed_of(params),
            temperature=params.temperature,
            top_p=params.top_p,
            min_p=params.min_p,
            top_k=params.top_k,
            repetition=params.repetition_penalty,
            presence=params.presence_penalty,
            frequency=params.frequency_penalty,
            min_tokens=params.min_tokens,
            num_top=-1 if params.logprobs is None else params.logprobs,
            forced=-1,
        )
        self._has_logprobs = params.logprobs is not None
        num_top = min(params.logprobs or 0, vocab_size)
        self._arrays: list[npt.NDArray[Any]] = []
        self.top_ids = self._keep("top_ids", np.zeros(num_top, np.int32))
        self.top_logprobs = self._keep("top_logprobs", np.zeros(self.top_ids.size))
        if params.repetition_penalty != 1:
            seen = padded_bits(vocab_size)
            set_bits(seen, prompt)
            self._keep("seen", seen)
        if params.presence_penalty or params.frequency_penalty:
            self._keep("counted", np.zeros(params.max_tokens + 1, np.int32))
            self._keep("counts", np.zeros(params.max_tokens + 1, np.int32))
        if params.logit_bias:
            tokens, biases = zip(*params.logit_bias, strict=True)
            self._keep("biased", np.array(tokens, np.int32))
            self._keep("biases", np.array(biases, np.float64))
            self.c.num_biased = len(tokens)
        if params.min_tokens:
            never = np.array(sorted({*ends, *params.stop_token_ids}), np.int32)
            self._keep("ends", never)
            self.c.num_ends = never.size
        self._rule: Rule = FREE
        self._vocab_size = vocab_size

    def set_rule(self, rule: Rule) -> None:
        """Note what may come; raises ValueError for a mask of another vocabulary."""
        if rule is self._rule:
            return
        if isinstance(rule, Allowed) and rule.size != self._vocab_size:
            raise ValueError(f"a mask of {rule.size} tokens for {self._vocab_size} logits.")
        self._rule = rule  # whose bits are kept by it
        self.c.forced = rule.token if isinstance(rule, Forced) else -1
        self.c.allowed = address(rule.bits) if isinstance(rule, Allowed) else None

    def choice(self) -> SampledToken | None:
        """Return what was drawn."""
        drawn = self.c
        if drawn.status != DrawStatus.DRAWN:
            return None
        if not self._has_logprobs:
            return SampledToken(drawn.token)
        return SampledToken(drawn.token, drawn.logprob, self.top())

    def top(self) -> tuple[tuple[int, float], ...]:
        """Return the likeliest tokens."""
        return tuple(zip(self.top_ids.tolist(), self.top_logprobs.tolist(), strict=True))

    def _keep(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Point a field to an array, which is kept as long as this."""
        self._arrays.append(array)
        setattr(self.c, name, address(array))
        return array


class CompiledDraws:
    """All sequences of a step in one call, on several threads, without Python's lock."""

    def __init__(
        self,
        vocab_size: int,
        num_threads: int,
        threads_of: ctypes.c_void_p | None = None,
        isa: InstructionSet = InstructionSet.AUTO,
    ) -> None:
        """Open the sampler; the arguments are DrawEngine's.

        Raises:
            EnvironmentUnfitError: there is no compiled library.
        """
        self._vocab_size = vocab_size
        self._engine = DrawEngine(vocab_size, num_threads, threads_of, isa)

    def open(self, params: SamplingParams, prompt: Sequence[int], ends: tuple[int, ...]) -> Draw:
        """Return a sequence's memory."""
        return Draw(params, prompt, ends, self._vocab_size)

    def choose(self, logits: Floats, turns: Sequence[Turn]) -> list[SampledToken | None]:
        """Return each sequence's next token."""
        for turn in turns:
            turn.draw.set_rule(turn.rule)
        self._engine.run([turn.draw.c for turn in turns], logits, [turn.row for turn in turns])
        return [turn.draw.choice() for turn in turns]

    def score(self, logits: Floats, tokens: Sequence[int], num_top: int) -> list[Score | None]:
        """Return what each row says of its token."""
        params = SamplingParams(logprobs=num_top, seed=0)
        draws = [Draw(params, (), (), self._vocab_size) for _ in tokens]
        for draw, token in zip(draws, tokens, strict=True):
            draw.c.forced, draw.c.wants_rank = token, 1
        self._engine.run([draw.c for draw in draws], logits, range(len(draws)))
        return [
            Score(draw.c.logprob, draw.c.rank, draw.top())
            if draw.c.status == DrawStatus.DRAWN
            else None
            for draw in draws
        ]


def open_draws(engine: Any) -> Draws:
    """Return what chooses the tokens of an engine with a `vocab_size`: compiled, if it can be.

    An engine whose threads are ours lends them: its `team`, of `num_threads`. Another has the
    sampler keep to its number.
    """
    team = getattr(engine, "team", None)
    num_threads = getattr(engine, "num_threads", None) or len(os.sched_getaffinity(0))
    if team is None:
        num_threads = min(num_threads, MAX_THREADS)
    try:
        return CompiledDraws(engine.vocab_size, num_threads, team)
    except EnvironmentUnfitError as error:
        log.warning("sampling by NumPy, slower with a large vocabulary: %s", error)
        return NumpyDraws()
