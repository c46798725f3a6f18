"""The limits that a user names on the command line of `nemotrt build`."""

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

from nemotrt.commandline import COUNT, option

if TYPE_CHECKING:
    from nemotrt.engines.runtime.engine import Limits

DEFAULTS = {"max_batch_size": 8, "max_seq_len": 4096, "chunk_tokens": 128}


@dataclass(frozen=True, slots=True)
class GivenLimits:
    """The limits of the command line; None where the user leaves the choice."""

    max_batch_size: int | None = option(
        None,
        "Sequences at once.",
        kind=COUNT,
        unset=f"{DEFAULTS['max_batch_size']}; with --gpu: as many as the planner says fit",
    )
    max_seq_len: int | None = option(
        None,
        "Prompt plus output.",
        kind=COUNT,
        unset=f"{DEFAULTS['max_seq_len']}; with --gpu: 24576, or what the model takes",
    )
    chunk_tokens: int | None = option(
        None,
        "Prompt tokens a step; edge-llm and tensorrt-llm-1.2 take no longer prompt.",
        kind=COUNT,
        unset=f"{DEFAULTS['chunk_tokens']}; tensorrt: 512; tensorrt-llm: the planner's; the other "
        "two: 8192",
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
