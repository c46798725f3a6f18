"""How a backend's Options say what the command line needs: a flag for each of their fields."""

from collections.abc import Mapping
from dataclasses import dataclass

FLAG = "flag"  # the key in a field's metadata
TP_SIZES = (1, 2, 4, 8)  # GPUs that may share a model


@dataclass(frozen=True, slots=True)
class Flag:
    """A field's option of `nemotrt build`; backends that share one say the same of it.

    With a `scale` the field is that many times the flag's number, which has no default of its own.
    The flag that `decides` chooses its CPU backend where the user names none.
    """

    name: str
    help: str
    scale: int = 1
    decides: bool = False


def flag(name: str, text: str, *, scale: int = 1, decides: bool = False) -> Mapping[str, Flag]:
    """Return the metadata of a field whose values a flag gives."""
    return {FLAG: Flag(name, text, scale, decides)}


@dataclass(frozen=True, slots=True)
class NoOptions:
    """The options of a backend that has none."""


TP_SIZE = flag("--tp-size", "GPUs that share the model.")
