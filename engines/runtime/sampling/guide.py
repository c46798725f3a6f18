"""What may steer one request's tokens from inside the engine's loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from nemotrt.engines.runtime.sampling.token_bits import set_bits


@dataclass(frozen=True, slots=True)
class Free:
    """Every token may come next."""


@dataclass(frozen=True, slots=True)
class Forced:
    """One token must come next, whatever the logits say."""

    token: int


class Allowed:
    """Only some tokens may come next, at least one.

    `bits` has one for each of `size` tokens, from the lowest of each byte: the form in which masks
    go from a grammar to the sampler. `is_free`: it says nothing of where the text may end.
    """

    __slots__ = ("bits", "is_free", "size")

    def __init__(self, mask: npt.NDArray[np.bool_], *, is_free: bool = False) -> None:
        """Allow the tokens of a mask [vocab]."""
        self.bits = np.packbits(mask, bitorder="little")
        self.size, self.is_free = mask.size, is_free

    @classmethod
    def of_bits(cls, bits: npt.NDArray[np.uint8], size: int, *, is_free: bool = False) -> "Allowed":
        """Allow the tokens of `size` bits; those after them are zero."""
        allowed = cls.__new__(cls)
        allowed.bits, allowed.size, allowed.is_free = bits, size, is_free
        return allowed

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """The tokens as [vocab]."""
        return np.unpackbits(self.bits, count=self.size, bitorder="little").view(np.bool_)

    @property
    def is_empty(self) -> bool:
        """Whether no token is left, which is a fault."""
        return not self.bits.any()

    def has(self, token: int) -> bool:
        """Whether a token may come."""
        return bool(self.bits[token // 8] >> token % 8 & 1)

    def and_also(self, tokens: Sequence[int]) -> "Allowed":
        """Return a rule that allows these tokens too."""
        bits = self.bits.copy()
        set_bits(bits, tokens)
        return Allowed.of_bits(bits, self.size)


@dataclass(frozen=True, slots=True)
class Complete:
    """Nothing may come next: the text is whole, and the request ends by `stop`."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The guide can't say what may come next: the request fails with the reason."""

    reason: str


Rule = Free | Forced | Allowed | Complete | Broken
FREE = Free()
COMPLETE = Complete()


class Guide(Protocol):
    """Steers one sequence: asked for a rule before each token, told of the token afterwards."""

    def rule(self) -> Rule:
        """Return what the next token must be; no rule stands for two of them."""

    def push(self, token: int, text: str) -> None:
        """Learn the token that was chosen and the text that it completed."""


class RuleBatch(Protocol):
    """Computes at one time what several guides' rules need; guides name it as their `batch`."""

    def prepare(self, guides: Sequence[Any]) -> None:
        """Make the guides' next rules ready; what fails, `rule()` tells."""


def rules(guides: Sequence[Guide]) -> list[Rule]:
    """Return each guide's rule, as `rule()` gives it; those that share a batch are prepared there.

    The thread may be another one than the guides' own, while nothing is pushed to them.
    """
    batches: dict[RuleBatch, dict[int, Guide]] = {}
    for guide in guides:
        asked = getattr(guide, "in_charge", guide)
        batch: RuleBatch | None = getattr(asked, "batch", None)
        if batch is not None:
            batches.setdefault(batch, {})[id(asked)] = asked
    for batch, members in batches.items():
        if len(members) > 1:
            batch.prepare(list(members.values()))
    return [guide.rule() for guide in guides]


@runtime_checkable
class LooksAhead(Protocol):
    """A guide that may know several of the next tokens."""

    def ahead(self) -> list[int]:
        """Return the tokens that come next in all likelihood; rules say whether they do."""


def known_ahead(guide: Guide | None) -> list[int]:
    """Return the next tokens that a guide knows of."""
    return guide.ahead() if isinstance(guide, LooksAhead) else []


class TextGuide(Guide, Protocol):
    """A guide of the answer, which may begin within a token and is told of that by text."""

    def push_text(self, text: str) -> None:
        """Learn text that is no token of its own: the rest of one."""

    def restart(self) -> None:
        """Forget everything: what was pushed turned out to be no answer."""
