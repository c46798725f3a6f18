"""What engines without a model share: slots, as every engine has them, and no state."""

from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.state.slots import Slots
from nemotrt.engines.runtime.state.state_pool import StatePool


class StandInEngine(Slots):
    """The Engine protocol but for `step`; a slot holds what `slots.advance` is told."""

    def __init__(self, limits: Limits, vocab_size: int) -> None:
        super().__init__(limits, vocab_size, StatePool())

    def close(self) -> None:
        pass
