"""What TensorRT for RTX compiles while a plan runs: kernels for the shapes at hand, and their file.

Its plans hold kernels for any shape; on the GPU faster ones are compiled for each shape that comes.
Decode waits for them, so that a captured graph has the final ones; prompt chunks, whose shapes
vary, run with the general ones until theirs are ready.
"""

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from nemotrt.errors import NemotrtError
from nemotrt.files.user_cache import user_cache, usual_cache
from nemotrt.files.writing import write_file

log = logging.getLogger("nemotrt.engine")
STRATEGIES = "DynamicShapesKernelSpecializationStrategy"


def has_jit(trt: Any) -> bool:
    """Whether this TensorRT compiles kernels while a plan runs; the ordinary one does not."""
    return hasattr(trt, STRATEGIES)


class JitKernels:
    """The runtime settings of one plan's contexts, which share compiled kernels."""

    def __init__(self, trt: Any, engine: Any, file: Path | None) -> None:
        """Take the kernels of `file`, unless TensorRT finds that they are for another machine."""
        self._trt, self._engine, self._file = trt, engine, file
        self._cache = engine.create_runtime_config().create_runtime_cache()
        if file is not None:
            with suppress(OSError):  # none yet, or none that can be read: they are compiled
                self._cache.deserialize(file.read_bytes())

    def settings(self, *, is_decode: bool) -> Any:
        """Return what a new context is created with."""
        strategies = getattr(self._trt, STRATEGIES)
        settings = self._engine.create_runtime_config()
        settings.set_execution_context_allocation_strategy(
            self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        settings.dynamic_shapes_kernel_specialization_strategy = (
            strategies.EAGER if is_decode else strategies.LAZY
        )
        settings.set_runtime_cache(self._cache)
        return settings

    def save(self) -> None:
        """Keep the kernels for the next time that the plan is opened, if the disk takes them."""
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_file(self._file, self._cache.serialize())
        except (OSError, NemotrtError) as error:
            log.warning("the plan's kernels are compiled anew at the next start: %s", error)


def kernel_file(plan_sha256: str) -> Path:
    """Return where the kernels of a plan are kept, in the user's cache, which may be read-only."""
    name = f"kernels-{plan_sha256[:16]}"
    usual = usual_cache()
    if usual is not None and (usual / name).is_file():
        return usual / name
    return user_cache() / name
