"""How the planner finds an engine's limits where the user gives none: one of three ways."""

from dataclasses import dataclass
from typing import ClassVar

from nemotrt.engines.backends.protocol.own_runtime import StateLayout

# What TensorRT-LLM's caches may take of what the weights leave.
# Source: NVIDIA's deployment cookbook for this model family, TensorRT-LLM section.
FREE_GPU_MEMORY_FRACTION = 0.8


@dataclass(frozen=True, slots=True)
class NotPlanned:
    """The planner knows nothing of it: a build keeps its default limits."""

    tp_size: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class OwnRuntime:
    """Our own GPU runtime: what it allocates is counted.

    Args:
        engine: the planner's name of it.
        layout: of its states.
    """

    engine: str
    layout: StateLayout
    tp_size: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class ForeignRuntime:
    """Somebody else's runtime, in the planner's words.

    Args:
        engine: the planner's name of what the runtime adds to the hardware.
        free_memory_share: of what the weights leave, that its caches may take.
        has_16_bit_state: the SSM state is bfloat16, else float32.
        takes_whole_prompts: the chunk is the longest prompt.
        has_all_prompts_at_once: there is room for a prompt of every sequence.
        tp_size: GPUs that share the model.
    """

    engine: str
    free_memory_share: float = 1.0
    has_16_bit_state: bool = False
    takes_whole_prompts: bool = False
    has_all_prompts_at_once: bool = False
    tp_size: int = 1


Planning = NotPlanned | OwnRuntime | ForeignRuntime
