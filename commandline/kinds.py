"""What click reads for an option: numbers that are finite, words of an enum, paths, counts."""

import math
from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import click


class FloatRange(click.FloatRange):
    """A range of finite numbers; click's own takes NaN for any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        found = super().convert(value, param, ctx)
        return found if math.isfinite(found) else self.fail(f"{value!r} is not finite.", param, ctx)


class Words(click.Choice[str]):
    """Words for the members of an enum; `old` ones of the release before are taken unseen."""

    def __init__(self, words: Mapping[str, Enum], old: Mapping[str, Enum] | None = None) -> None:
        """Show `words`."""
        super().__init__(list(words))
        self.words, self.old = words, old or {}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the member."""
        return self.old.get(value) or self.words[super().convert(value, param, ctx)]


def choices(items: Collection[Any]) -> Words:
    """Return the type of an option that takes one of these members of an enum."""
    return Words({str(item.value): item for item in items})


PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
READABLE = click.Path(path_type=Path, dir_okay=False, exists=True)
FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
COUNT = click.IntRange(1)
ABOVE_0 = FloatRange(0, min_open=True)
PORT = click.IntRange(0, 65535)
