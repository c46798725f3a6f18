"""The limits that a user names on the command line of `nemotrt build`."""

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

from nemotrt.commandline.kinds import COUNT
from nemotrt.commandline.options import option

if TYPE_CHECKING:
    from nemotrt.engines.runtime.engine import Limits

BATCH_SIZE, SEQ_LEN, CHUNK_TOKENS = 8, 4096, 128  # where nothing plans them


def _limit(default: int, text: str, otherwise: str) -> Any:
    """Return the field of a limit, which is `default` on a CPU."""
    return option(None, text, kind=COUNT, unset=f"{default}; {otherwise}")


@dataclass(frozen=True, slots=True)
class GivenLimits:
    """The limits of the command line; None where the user leaves the choice."""

    max_batch_size: int | None = _limit(
        BATCH_SIZE, "Sequences at once.", "with --gpu: as many as the planner says fit"
    )
    max_seq_len: int | None = _limit(
        SEQ_LEN, "Prompt plus output.", "with --gpu: 24576, or what the model takes"
    )
    chunk_tokens: int | None = _limit(
        CHUNK_TOKENS,
        "Prompt tokens per step; edge-llm and tensorrt-llm-1.2 take no longer prompt.",
        "tensorrt: 320; tensorrt-llm: the planner's; the other two: 8192",
    )

    def over(self, default: "Limits") -> "Limits":
        """Return `default` with what is given in its place; a chunk is cut to a sequence."""
        seq_len = self.max_seq_len or default.max_seq_len
        return replace(
            default,
            max_batch_size=self.max_batch_size or default.max_batch_size,
            max_seq_len=seq_len,
            chunk_tokens=self.chunk_tokens or min(default.chunk_tokens, seq_len),
        )

    def or_else(self, other: "GivenLimits") -> "GivenLimits":
        """Return these limits, and those of `other` where these are left open."""
        both = zip(astuple(self), astuple(other), strict=True)
        return GivenLimits(*(mine or its for mine, its in both))
