"""Guesses that a step checks beside its own token (speculation): how many, and how many hold."""

from dataclasses import dataclass

from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.profiles.planning.time.engine_profile import DraftStates


@dataclass(frozen=True, slots=True)
class Drafts:
    """Guesses of each sequence in each step.

    accepted: those that hold, a mean; a step gives one token more than that.
    states: how the engine undoes the others.
    """

    guesses: int
    accepted: float
    states: DraftStates

    @property
    def num_checked(self) -> int:
        """Tokens of a sequence in a step: the last one, and the guesses after it."""
        return 1 + self.guesses

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a step gives a sequence."""
        return 1 + self.accepted


def noted_elements(model: ModelConfig) -> int:
    """Return the elements that a replay needs of one token, over all Mamba layers.

    They are the convolution's inputs, and x, B, decay and time step of the scan. Source:
    docs/internals/speculation.md (2.5 MiB of the 9B in float32).
    """
    mamba = model.mamba
    if mamba is None:
        return 0
    keys = mamba.num_groups * mamba.state_size
    each = mamba.conv_dim + mamba.inner_size + keys + 2 * mamba.num_heads
    return each * model.num_mamba_layers
