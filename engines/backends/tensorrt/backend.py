"""The tensorrt backend, as one object."""

from pathlib import Path
from typing import TYPE_CHECKING

from nemotrt.engines.backends.protocol.backend import (
    NO_BF16,
    NO_FP8,
    Backend,
    BuildJob,
    Executed,
    Payload,
    Target,
)
from nemotrt.engines.backends.protocol.local_gpu import local_compute_capability
from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.protocol.planning import OwnRuntime, Planning
from nemotrt.engines.backends.tensorrt.graph.fitness import (
    AHEAD_OF_TIME,
    not_ahead_of_time,
    too_old,
    unfit,
)
from nemotrt.engines.backends.tensorrt.graph.options import PRECISIONS, TensorRTOptions
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.needs import (
    CUDA,
    CUDA_13_DRIVER,
    ONNX,
    RTX_BINDINGS,
    RTX_LIBS,
    TENSORRT,
    Ability,
    Need,
)

if TYPE_CHECKING:
    from nemotrt.engines.artefact.manifest import Manifest
    from nemotrt.engines.artefact.options import OpenOptions
    from nemotrt.engines.runtime.engine import Engine

COMPILED = "compiled, not executed"
ON_HOST = "compiles on its host, not tried"
PLUGINS = (
    "tensorrt --mamba plugin: each precision of tensorrt, on the GPU's own host: kernels compiled "
    "and emulated, plugins driven over stand-ins; not executed"
)


def check_kernel_compiler() -> None:
    """Raise EnvironmentUnfitError where nothing compiles our CUDA kernels."""
    from nemotrt.engines.backends.tensorrt.device.kernel_image import check_compiler

    check_compiler()


def check_plugins_here() -> None:
    """Raise EnvironmentUnfitError where plans with plugins can't be compiled, GPU aside."""
    version = TENSORRT.installed()
    if version is not None and (fault := unfit(version, has_plugins=True)):
        raise EnvironmentUnfitError(f"TensorRT {version} {fault}")
    check_kernel_compiler()


class TensorRTBackend(Backend[TensorRTOptions]):
    """Compiles plans for NVIDIA GPUs, and runs them on the GPU's host."""

    name = "tensorrt"
    options_type = TensorRTOptions
    precisions = PRECISIONS
    executed = Executed.NEVER
    not_executed_note = "Compiled, not executed: no GPU ran this plan."
    built = COMPILED
    built_how = (
        (
            COMPILED,
            "here, by TensorRT for RTX; its layers checked, its ONNX file run in ONNX Runtime "
            "against the CPU engine",
        ),
        (ON_HOST, "by ordinary TensorRT from the same ONNX file; driven in tests over a stand-in"),
    )
    table_notes = (PLUGINS,)
    abilities = (
        Ability(
            "compile plans for A10G, A100 here (tensorrt)", (ONNX, RTX_BINDINGS, RTX_LIBS), "rtx"
        ),
        Ability(
            "run plans here (tensorrt)",
            (RTX_BINDINGS, RTX_LIBS, CUDA),
            "rtx-run",
            needs_gpu=True,
            least_driver=CUDA_13_DRIVER,
            unsupported=not_ahead_of_time,
        ),
        Ability(
            "compile and run plans with ordinary TensorRT here (tensorrt)",
            (TENSORRT, CUDA),
            "tensorrt",
            needs_gpu=True,
            least_driver=CUDA_13_DRIVER,
            unsupported=too_old,
        ),
        Ability(
            "choose tokens on the GPU (tensorrt)",
            (CUDA,),
            needs_gpu=True,
            least_driver=CUDA_13_DRIVER,
            unsupported=too_old,
            check=check_kernel_compiler,
        ),
        Ability(
            "compile plans with Mamba plugins here (tensorrt)",
            (TENSORRT, CUDA),
            "tensorrt",
            needs_gpu=True,
            least_driver=CUDA_13_DRIVER,
            unsupported=too_old,
            check=check_plugins_here,
        ),
    )

    def supports(self, compute_capability: str | None, precision: Precision) -> str | None:
        """Return why it lacks the precision on the GPU."""
        missing = self.lacks_arithmetic(compute_capability, precision)
        return missing or super().supports(compute_capability, precision)

    def table_cell(self, compute_capability: str, precision: Precision) -> str:
        """Say where it is compiled, or why not."""
        cell = super().table_cell(compute_capability, precision)
        if cell == self.built:
            return COMPILED if compute_capability in AHEAD_OF_TIME else ON_HOST
        return cell if cell in (NO_FP8, NO_BF16) else "no: not a type of TensorRT's layers"

    def check(self, target: Target[TensorRTOptions]) -> None:
        """Raise unless a plan for the GPU can be compiled on this machine."""
        from nemotrt.engines.backends.tensorrt.compile import flavour
        from nemotrt.engines.backends.tensorrt.plugins.choice import check_plugins

        has_plugins = target.options.has_plugins
        if has_plugins:
            is_local = target.capability == local_compute_capability()
            check_plugins(target.checkpoint.config, str(target.gpu), has_local_gpu=is_local)
        self.check_supported(target)
        flavour.choose(target.capability, has_plugins=has_plugins)

    def check_memory(self, target: Target[TensorRTOptions]) -> None:
        """Raise EnvironmentUnfitError unless a plan with the weights inside can be compiled."""
        from nemotrt.engines.backends.tensorrt.graph import export as graph_export

        graph_export.check_memory(target.checkpoint, is_embedded=target.options.is_embedded)

    def build(self, target: Target[TensorRTOptions], job: BuildJob) -> Payload:
        """Write graph, plan and layer report."""
        from nemotrt.engines.backends.tensorrt.compile import flavour
        from nemotrt.engines.backends.tensorrt.compile.plan_builder import build_plan

        weights, notes = build_plan(target, job)
        tools = flavour.tools(target.capability, has_plugins=target.options.has_plugins)
        return Payload(tools, notes, weights)

    def open(self, folder: Path, manifest: "Manifest", options: "OpenOptions") -> "Engine":
        """Return the open plan, on its GPU."""
        from nemotrt.engines.backends.tensorrt.run.engine import open_engine

        return open_engine(folder, manifest, options)

    def needs_here(self, folder: Path, manifest: "Manifest") -> tuple[Need, ...]:
        """Return what opening the plan asks of this machine."""
        from nemotrt.engines.backends.tensorrt.run.needs import needs_here

        return needs_here(folder, manifest)

    def planning(self, options: TensorRTOptions) -> Planning:
        """Count what the runtime allocates; plugins update states in place.

        TensorRT's own layers let one spare state rotate: a build proves that, or says that it
        can't.
        """
        layout = StateLayout.IN_PLACE if options.has_plugins else StateLayout.ROTATING
        return OwnRuntime(self.name, layout)

    def print_layers(self, folder: Path, manifest: "Manifest", *, as_json: bool) -> None:
        """Print every kernel of both profiles and the summary."""
        from nemotrt.engines.backends.tensorrt.compile.layer_table import print_layers

        print_layers(folder, manifest, as_json=as_json)


BACKEND = TensorRTBackend()
