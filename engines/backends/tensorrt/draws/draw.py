"""One sequence whose tokens are chosen on the device: its settings, and the mask it has there."""

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.tensorrt.draws.tables import BIASED, COUNTED, MASKED, SEEN, CTurn
from nemotrt.engines.runtime.sampling.guide import Allowed, Forced, Rule
from nemotrt.engines.runtime.sampling.params import SamplingParams, seed_of
from nemotrt.engines.runtime.sampling.token_bits import set_bits
from nemotrt.errors import ConfigError

COLDEST, HOTTEST = 1e-30, 1e30  # temperatures beyond which nothing changes
SMALLEST = 1e-14  # below every weight but 0
LARGEST = float(np.finfo(np.float32).max)

Bits = npt.NDArray[np.uint8]


class DeviceDraw:
    """A sequence's settings; its memory is in its slot's tables."""

    def __init__(
        self, slot: int, params: SamplingParams, ends: tuple[int, ...], vocab_size: int
    ) -> None:
        """Start a sequence; the arguments are DeviceDraws.open's."""
        self.slot = slot
        self.num_top = params.logprobs
        self._vocab_size = vocab_size
        self._min_tokens = params.min_tokens
        never = {token for token in (*ends, *params.stop_token_ids) if 0 <= token < vocab_size}
        self._ends = sorted(never)
        self._mask: tuple[Allowed | None, bool] = (None, False)  # rule, and whether ends are out
        temperature = min(params.temperature, HOTTEST)
        self.c = CTurn(
            seed=seed_of(params),
            top_p=params.top_p,
            presence=params.presence_penalty,
            frequency=params.frequency_penalty,
            inverse=0 if temperature < COLDEST else 1 / temperature,
            least_weight=max(params.min_p, SMALLEST) if params.min_p else 0,
            repetition=min(params.repetition_penalty, LARGEST),
            slot=slot,
            forced=-1,
            top_k=params.top_k if params.top_k < vocab_size else 0,
            num_biased=len(params.logit_bias),
        )
        if params.repetition_penalty != 1:
            self.c.edits |= SEEN
        if params.presence_penalty or params.frequency_penalty:
            self.c.edits |= COUNTED
        if params.logit_bias:
            self.c.edits |= BIASED

    def check(self, rule: Rule) -> None:
        """Raise unless the rule is for this vocabulary.

        Raises:
            ConfigError: a forced token that is none.
            ValueError: a mask of another vocabulary.
        """
        if isinstance(rule, Forced) and not 0 <= rule.token < self._vocab_size:
            raise ConfigError(f"the forced token {rule.token} is not below {self._vocab_size}.")
        if isinstance(rule, Allowed) and rule.size != self._vocab_size:
            raise ValueError(f"a mask of {rule.size} tokens for {self._vocab_size} logits.")

    def move(self, slot: int) -> None:
        """Note another slot as its own, where the device has no mask of it."""
        self.slot = self.c.slot = slot
        self._mask = (None, False)
        self.c.edits &= ~MASKED

    def set_rule(self, rule: Rule) -> Bits | None:
        """Note what may come; return a mask that the device does not have yet, if it is needed."""
        self.c.forced = rule.token if isinstance(rule, Forced) else -1
        if isinstance(rule, Forced):
            return None
        allowed = rule if isinstance(rule, Allowed) else None
        is_early = bool(self._ends) and self.c.position < self._min_tokens
        if allowed is self._mask[0] and is_early == self._mask[1]:
            return None
        self._mask = (allowed, is_early)
        bits = None if allowed is None else allowed.bits
        if is_early:
            bits = self._without_ends(bits)
        self.c.edits = self.c.edits & ~MASKED | (0 if bits is None else MASKED)
        return bits

    def _without_ends(self, bits: Bits | None) -> Bits | None:
        """Return a mask that forbids what would end the text, unless nothing else may come."""
        early = np.zeros(-(-self._vocab_size // 8), np.uint8)
        set_bits(early, self._ends)
        every = np.packbits(np.ones(self._vocab_size, np.bool_), bitorder="little")
        rest = (every if bits is None else bits[: every.size] & every) & ~early
        return rest if rest.any() else bits
