"""Plans that carry their graph, so that the stand-in for TensorRT computes it wherever they lie.

A plan is what the real compiler made, and behind it an archive of the graph file, its constants and
the profiles. It is imported in the compiler's process too, so what is heavy is imported late.
"""

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

GRAPH, CONSTANTS, PROFILES = "model.onnx", "model.onnx.data", "profiles.json"
# What a module has for running plans, which is the stand-in's.
RUN_TIME = (
    "TensorIOMode",
    "ExecutionContextAllocationStrategy",
    "DynamicShapesKernelSpecializationStrategy",
    "Logger",
    "Runtime",
)
KEPT: list[Any] = []  # folders of open plans, which go with the process


def carrying(real: Callable[[Any], Any]) -> type:
    """Return a builder over a real one, whose plans carry the graph of the working folder."""

    class Builder:
        def __init__(self, logger: Any) -> None:
            self._real = real(logger)
            self._profiles: list[Any] = []

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def create_optimization_profile(self) -> Any:
            self._profiles.append(self._real.create_optimization_profile())
            return self._profiles[-1]

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            plan = self._real.build_serialized_network(network, config)
            return None if plan is None else bytes(plan) + self._archive()

        def _archive(self) -> bytes:
            shapes = [
                [tuple(shape) for shape in profile.get_shape("input_ids")]
                for profile in self._profiles
            ]
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                archive.writestr(zipfile.ZipInfo(PROFILES), json.dumps(shapes))
                for name in (GRAPH, CONSTANTS):
                    if Path(name).is_file():
                        archive.writestr(zipfile.ZipInfo(name), Path(name).read_bytes())
            return buffer.getvalue()

    return Builder


def open_plan(plan: bytes, *, is_rtx: bool) -> Any:
    """Return the stand-in's engine of a plan; None, as TensorRT says, where it can't read it."""
    from support import tensorrt_stand_in
    from support.rehearsal.device import RUNTIME

    folder = tempfile.TemporaryDirectory(prefix="plan-")
    KEPT.append(folder)
    try:
        with zipfile.ZipFile(io.BytesIO(plan)) as archive:
            archive.extractall(folder.name)
            profiles = json.loads(archive.read(PROFILES))
    except zipfile.BadZipFile:
        return None
    kind = tensorrt_stand_in.RtxTensorRT if is_rtx else tensorrt_stand_in.TensorRT
    module = kind(RUNTIME, Path(folder.name) / GRAPH, None, profiles)
    module.rotates = True
    return module.Runtime(None).deserialize_cuda_engine(plan)


def stand_in(name: str, *, is_rtx: bool) -> Any:
    """Return what a module has for running plans.

    Raises:
        AttributeError: it has no such thing.
    """
    if name not in RUN_TIME or (name.startswith("Dynamic") and not is_rtx):
        raise AttributeError(name)
    if name == "Runtime":
        return lambda logger: _Runtime(is_rtx=is_rtx)
    from support import tensorrt_stand_in

    return getattr(tensorrt_stand_in, name)


class _Runtime:
    def __init__(self, *, is_rtx: bool) -> None:
        self._is_rtx = is_rtx

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        return open_plan(serialized_engine, is_rtx=self._is_rtx)
