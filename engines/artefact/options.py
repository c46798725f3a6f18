"""The options of every command that opens an engine; nothing heavy is imported."""

from dataclasses import dataclass
from enum import StrEnum

from nemotrt.commandline.kinds import COUNT, choices
from nemotrt.commandline.options import one_option, option, options_of
from nemotrt.engines.checkpoint.hub.parameter import CHECKPOINT
from nemotrt.engines.checkpoint.lora.named import NamedAdapter, NamedAdapterType, check_names
from nemotrt.engines.runtime.speculation.options import AUTO, Guesses, num_guesses


class WeightPages(StrEnum):
    """When the pages of mapped weights come into memory, and where."""

    LAZY = "lazy"  # as they are touched
    READAHEAD = "readahead"  # from the disk, while the engine works already
    POPULATE = "populate"  # all of them, before the engine is open
    INTERLEAVE = "interleave"  # likewise, over all memory nodes


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How an engine is opened. Apart from an adapter, none of it changes what the engine computes.

    With `trust_seals` a file whose digest was verified before is not read again, unless it has
    changed since.
    """

    num_threads: int | None = option(
        None, "CPU threads of the engine.", "--threads", kind=COUNT, unset="all"
    )
    checkpoint: str | None = option(
        None,
        "Where the weights of ENGINE are, if they stay in a checkpoint; or $NEMOTRT_CHECKPOINT.",
        kind=CHECKPOINT,
        metavar="CHECKPOINT",
        unset="where they were at its build",
    )
    trust_seals: bool = option(
        True,
        "Read every byte of ENGINE and its weights, also what was verified before.",
        "--verify",
    )
    tensorrt_llm_python: str | None = option(
        None,
        "Python that has TensorRT-LLM, for a bundle of it.",
        metavar="PYTHON",
        unset="$NEMOTRT_TENSORRT_LLM_PYTHON",
    )
    speculate: str = option(
        AUTO,
        "Most tokens that a step guesses from the text so far: auto, off or a number. "
        "The answers are the same; auto is off where the engine takes no guesses.",
        kind=Guesses(),
        metavar="auto|off|N",
    )
    lora: tuple[NamedAdapter, ...] = option(
        (),
        "Run this LoRA adapter (PEFT's files) beside the weights, called NAME; may be repeated.",
        kind=NamedAdapterType(),
        metavar="NAME=DIR",
    )

    weight_pages: WeightPages = option(
        WeightPages.LAZY,
        "When mapped weights come into memory: lazy (as they are touched), readahead (in the "
        "background), populate (before the first step), interleave (likewise, page by page over "
        "the memory nodes of a machine that has several).",
        kind=choices(tuple(WeightPages)),
    )
    pins_threads: bool = option(
        False, "Keep each thread of the engine but the first on a core of its own.", "--pin-threads"
    )

    def __post_init__(self) -> None:
        """Check the word and the names."""
        num_guesses(self.speculate)
        check_names(self.lora)


AS_BUILT = OpenOptions()
# of no use where nothing runs
OF_PROCESS = (
    *("num_threads", "tensorrt_llm_python", "speculate", "lora"),
    *("weight_pages", "pins_threads"),
)
weight_options = options_of(OpenOptions, without=OF_PROCESS)
step_options = options_of(OpenOptions, without=("tensorrt_llm_python", "speculate"))
checkpoint_option = one_option(OpenOptions, "checkpoint")
