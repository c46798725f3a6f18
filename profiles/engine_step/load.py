"""What the steps that are measured are fed; nothing heavy is imported."""

from dataclasses import dataclass

import click

from nemotrt.commandline.kinds import COUNT
from nemotrt.commandline.options import option


@dataclass(frozen=True, slots=True)
class Load:
    """What one step is fed: `batch` sequences with `held` tokens each get `tokens` new ones."""

    batch: int = option(1, "Sequences.", kind=COUNT)
    held: int = option(128, "Tokens that each sequence holds.", kind=click.IntRange(0))
    tokens: int = option(1, "New tokens of each sequence in a step.", kind=COUNT)

    @property
    def num_tokens(self) -> int:
        """New tokens of all sequences."""
        return self.batch * self.tokens
