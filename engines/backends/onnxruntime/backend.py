"""The onnxruntime backend, as one object."""

from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from nemotrt.engines.backends.onnxruntime.options import OnnxRuntimeOptions
from nemotrt.engines.backends.protocol.backend import BuildJob, CpuBackend, Payload, Target
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.needs import ONNX, ONNXRUNTIME, Ability, Need

if TYPE_CHECKING:
    from nemotrt.engines.artefact.manifest import Manifest
    from nemotrt.engines.runtime.engine import Engine, Limits


def check_runtime() -> None:
    """Raise EnvironmentUnfitError where ONNX Runtime is not installed."""
    if util.find_spec("onnxruntime") is None:
        raise EnvironmentUnfitError(f"ONNX Runtime is not installed: {ONNXRUNTIME.cure}.")


class OnnxRuntimeBackend(CpuBackend[OnnxRuntimeOptions]):
    """Runs on any CPU."""

    name = "onnxruntime"
    rounds_inputs = True  # its MatMulNBits does, block by block
    options_type = OnnxRuntimeOptions
    has_experts = True
    precisions = (Precision.FP32, Precision.BF16, Precision.INT8_WO, Precision.INT4_WO)
    abilities = (Ability("build and run on the CPU (onnxruntime)", (ONNXRUNTIME, ONNX)),)

    def check(self, target: Target[OnnxRuntimeOptions]) -> None:
        """Raise ConfigError unless it runs the precision."""
        self.check_supported(target)

    def build(self, target: Target[OnnxRuntimeOptions], job: BuildJob) -> Payload:
        """Write the fused graph and its weights."""
        from nemotrt.engines.backends.onnxruntime import engine as onnxruntime

        onnxruntime.export(
            target.checkpoint,
            job.folder,
            job.limits,
            target.precision,
            is_exact=target.options.is_exact,
        )
        return Payload(onnxruntime.tools(), {"is_exact": target.options.is_exact}, {})

    def load(self, folder: Path, limits: "Limits", num_threads: int | None) -> "Engine":
        """Return the open engine."""
        from nemotrt.engines.backends.onnxruntime.engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(folder, limits, num_threads)

    def needs_here(self, folder: Path, manifest: "Manifest") -> tuple[Need, ...]:
        """Return what opening the engine asks of this machine."""
        return (Need("ONNX Runtime", check_runtime),)


BACKEND = OnnxRuntimeBackend()
