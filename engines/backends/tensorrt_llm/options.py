"""What a user may choose of a TensorRT-LLM bundle."""

from dataclasses import dataclass

import click

from nemotrt.commandline.kinds import COUNT
from nemotrt.commandline.options import option
from nemotrt.engines.backends.protocol.options import tp_size
from nemotrt.engines.checkpoint.lora.merging import USUAL_RANK


@dataclass(frozen=True, slots=True)
class TensorRTLLMOptions:
    """How TensorRT-LLM runs the model.

    `prefix_snapshots`, `avg_seq_len` and `max_loras` need a version of TensorRT-LLM that has them:
    `versions` says which. `planned_snapshots` is the planner's value, used if `prefix_snapshots` is
    None; a version without the feature ignores it.
    """

    tp_size: int = tp_size()
    is_code_trusted: bool = option(
        False,
        "let it import the checkpoint's own Python code, as 1.2 needs.",
        "--trust-remote-code",
    )
    prefix_snapshots: int | None = option(
        None,
        "reuse prefixes, with a hybrid's state kept every so many tokens (1.3.0rc24 or later); 0: "
        "reuse none.",
        kind=click.IntRange(0),
        unset="the planner's, where the version on the GPU host has it",
    )
    avg_seq_len: int | None = option(
        None,
        "tokens of a usual sequence, by which states and KV cache share memory (1.4.0rc4 or "
        "later).",
        kind=COUNT,
    )
    max_loras: int | None = option(
        None,
        "adapters that requests may name (1.3.0rc26 or later for a hybrid).",
        kind=COUNT,
    )
    max_lora_rank: int | None = option(
        None, "rank of those adapters, at most.", kind=COUNT, unset=str(USUAL_RANK)
    )
    planned_snapshots: int | None = None
