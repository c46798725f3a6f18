"""TensorRT for RTX: the real one compiles, and what runs its plans is a stand-in."""

from typing import Any

from support.rehearsal import plans
from tensorrt_rtx_bindings.real import *  # noqa: F403
from tensorrt_rtx_bindings.real import Builder as _Builder

Builder = plans.carrying(_Builder)
for _name in plans.RUN_TIME:
    globals().pop(_name, None)  # __getattr__ has the stand-in's


def __getattr__(name: str) -> Any:
    return plans.stand_in(name, is_rtx=True)
