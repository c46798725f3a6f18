"""NVIDIA-Nemotron-Nano-9B-v2 from a checkpoint to a measured deployment, from Python.

>>> from nemotrt import LLM, SamplingParams
>>> with LLM("tiny", quiet=True) as llm:
...     llm.generate("The Debian package", SamplingParams(max_tokens=2)).finish_reason.value
'length'

Importing it imports nothing heavy: a name brings what it needs when it is first used.
docs/reference/python.md tells the rest. The names below stay the same from release to release.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nemotrt.engines.runtime.sampling.params import SamplingParams
    from nemotrt.llm import LLM, Answer, Piece
    from nemotrt.profiles.planning.answers.call import plan
    from nemotrt.quantize.call import quantize

    __version__: str

# Where each name is, below this package. `quantize` is that folder itself, which can be called.
PLACES = {
    "LLM": "llm",
    "Answer": "llm",
    "Piece": "llm",
    "SamplingParams": "engines.runtime.sampling.params",
    "plan": "profiles.planning.answers.call",
}
__all__ = ["LLM", "Answer", "Piece", "SamplingParams", "__version__", "plan", "quantize"]


def __getattr__(name: str) -> Any:
    """Return a public name, imported when it is first asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("nemotrt")
    if name == "quantize":
        return import_module("nemotrt.quantize")
    if name not in PLACES:
        raise AttributeError(f"module 'nemotrt' has no attribute {name!r}")
    return getattr(import_module(f"nemotrt.{PLACES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, and what has been imported."""
    return sorted({*globals(), *__all__})
