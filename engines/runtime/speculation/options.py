"""How many tokens a step may guess ahead, in a user's words."""

from typing import Any

import click

from nemotrt.errors import ConfigError

AUTO, OFF = "auto", "off"
MOST_GUESSES = 32  # of a sequence in a step
AUTO_GUESSES = 15  # with the token before them, a chunk of 16


def num_guesses(word: str) -> int:
    """Return how many tokens are guessed at most; 0 where it is off.

    Raises:
        ConfigError: the word is none of auto, off and a number.
    """
    if word in (AUTO, OFF):
        return AUTO_GUESSES if word == AUTO else 0
    if not (word.isascii() and word.isdigit() and 1 <= int(word) <= MOST_GUESSES):
        raise ConfigError(f"speculate must be auto, off or 1 to {MOST_GUESSES}, got {word!r}.")
    return int(word)


class Guesses(click.ParamType[str]):
    """auto, off, or a number of tokens."""

    name = "guesses"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the word."""
        try:
            num_guesses(str(value))
        except ConfigError:
            self.fail(f"{value!r} is none of auto, off and 1 to {MOST_GUESSES}.", param, ctx)
        return str(value)
