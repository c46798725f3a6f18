"""Which adapters become part of the weights, and how much of each: `--lora DIR[=WEIGHT]`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from nemotrt.commandline.options import option

USUAL_RANK = 16  # of adapters that are not there yet
WEIGHTED = re.compile(
    r"(?P<path>.+)=(?P<weight>[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d{1,2})?)", re.I | re.A
)


@dataclass(frozen=True, slots=True)
class Merging:
    """A folder with an adapter, and how much of it is merged."""

    path: Path
    weight: float = 1.0

    def __str__(self) -> str:
        """Return it as a user writes it."""
        return str(self.path) if self.weight == 1 else f"{self.path}={self.weight:g}"


def read_merging(text: str) -> Merging:
    """Return what DIR or DIR=WEIGHT says; a folder that has such a name is a folder."""
    found = None if Path(text).is_dir() else WEIGHTED.fullmatch(text)
    return Merging(Path(found["path"]), float(found["weight"])) if found else Merging(Path(text))


class MergingType(click.ParamType[Merging]):
    """A folder with an adapter, and how much of it is merged."""

    name = "adapter"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Merging:
        """Return what is to be merged."""
        return value if isinstance(value, Merging) else read_merging(str(value))


@dataclass(frozen=True, slots=True)
class MergingOptions:
    """The adapters, in their order."""

    lora: tuple[Merging, ...] = option(
        (),
        "Merge this LoRA adapter (PEFT's files) into the weights, WEIGHT times; may be repeated.",
        kind=MergingType(),
        metavar="DIR[=WEIGHT]",
    )
