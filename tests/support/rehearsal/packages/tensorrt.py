"""Ordinary TensorRT on its GPU's host: the stand-in that compiles, and the one that runs plans."""

import sys
from pathlib import Path
from typing import Any

from support.rehearsal import plans

COMPILER = Path(plans.__file__).parents[2] / "compiler"  # inside the stand-in, and no package here
sys.path.append(str(COMPILER))
from host_tensorrt_compiler import *  # noqa: E402, F403
from host_tensorrt_compiler import Builder as _Builder  # noqa: E402
from host_tensorrt_compiler import Runtime as _Runtime  # noqa: E402

sys.path.remove(str(COMPILER))
Builder = plans.carrying(_Builder)


class Runtime:
    """Opens a plan: what is asked of it as it is compiled, and what is as it runs."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        if isinstance(self._logger, ILogger):  # noqa: F405  (the compiler process's own)
            return _Runtime(self._logger).deserialize_cuda_engine(serialized_engine)
        return plans.open_plan(serialized_engine, is_rtx=False)


def __getattr__(name: str) -> Any:
    return plans.stand_in(name, is_rtx=False)
