"""The TensorRT part of a build: graph, plan, layer report, and the weights that it is fed."""

import dataclasses
import json
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from nemotrt.engines.artefact.manifest import WeightInput
from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt import compile as tensorrt
from nemotrt.engines.backends.tensorrt.compile.layer_check import LAYERS_FILE, check_layers
from nemotrt.engines.backends.tensorrt.compile.layer_report import LayerReport
from nemotrt.engines.backends.tensorrt.compile.state_proof import (
    LAYOUT_REASON,
    STATE_LAYOUT,
    state_layout,
)
from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims
from nemotrt.engines.backends.tensorrt.device.kernel_image import KERNELS_FILE, compile_image
from nemotrt.engines.backends.tensorrt.graph.options import MambaLayers
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.tensor_digest import tensor_digests
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits

# What a second build of the same input may have otherwise. Source: 41 builds of a slice of the 9B
# and 16 of the tiny model, tensorrt-rtx 1.7.1.116, 2026-11: two plans differed, in seven bytes.
RENUMBERED = "the numbers of a few internal tensors of engine.plan"
REORDERED = "the order and numbers of internal tensors, in engine.plan and layers.json"
Options = dict[str, str | int | float | bool]


@dataclasses.dataclass(frozen=True, slots=True)
class PlanSpec:
    """How to compile a plan; 0 bytes of workspace leaves that to TensorRT."""

    limits: Limits
    precision: Precision
    compute_capability: str
    is_embedded: bool = False
    workspace_bytes: int = 0
    mamba: MambaLayers = MambaLayers.NATIVE


def build_plan(
    checkpoint: Checkpoint, folder: Path, spec: PlanSpec, report: Callable[[str], None]
) -> tuple[dict[str, WeightInput], Options]:
    """Compile a plan into `folder`; return its weight inputs and what a manifest notes.

    The weights' digests are taken while the compiler runs, which is a process of its own.
    """
    plugins = build_plugins(checkpoint, folder, spec, report)
    bound = tensorrt.export(
        checkpoint,
        folder,
        spec.limits,
        spec.precision,
        is_embedded=spec.is_embedded,
        mamba=spec.mamba,
    )
    refs = [checkpoint[weight.tensor] for weight in bound.values()]
    how = tensorrt.CompileOptions(
        spec.workspace_bytes, plugins=str(plugins.get("mamba_kernels", ""))
    )
    stop = Event()
    with ThreadPoolExecutor(1) as beside:
        digests = beside.submit(tensor_digests, refs, stop)
        try:
            compiled = tensorrt.compile_plan(
                folder, spec.limits, spec.compute_capability, how, report=report
            )
        except BaseException:
            stop.set()
            raise
        report("weight digests")
        weights = {
            name: WeightInput(sha256=digest, **dataclasses.asdict(weight))
            for (name, weight), digest in zip(bound.items(), digests.result(), strict=True)
        }
    stored = {name: weight.dtype for name, weight in bound.items()}
    found = check_layers(compiled.report, checkpoint.config, stored, spec.precision)
    (folder / LAYERS_FILE).write_text(json.dumps(compiled.report.as_json()), encoding="utf-8")
    return weights, {
        **plugins,
        **_layout_notes(compiled.report, checkpoint, spec, bound),
        "is_embedded": spec.is_embedded,
        "rebuild_differs_in": RENUMBERED if compiled.is_address_space_fixed else REORDERED,
        "kv_cache": "bf16",
        "layer_faults": "; ".join(found.faults),
    }


def _layout_notes(
    report: LayerReport, checkpoint: Checkpoint, spec: PlanSpec, bound: Collection[str]
) -> Options:
    """Return what a manifest notes of where decode steps write states."""
    if spec.mamba is MambaLayers.PLUGIN:
        return {STATE_LAYOUT: StateLayout.IN_PLACE.value}
    num_layers = checkpoint.config.num_mamba_layers
    if not num_layers:
        return {}
    layout, reason = state_layout(report, num_layers, {*tensorrt.FED, *bound})
    notes: Options = {STATE_LAYOUT: layout.value}
    return notes | ({LAYOUT_REASON: reason} if reason else {})


def build_plugins(
    checkpoint: Checkpoint, folder: Path, spec: PlanSpec, report: Callable[[str], None]
) -> Options:
    """Compile the Mamba plugins' kernels into `folder`, if wanted; return what a manifest notes."""
    mamba = checkpoint.config.mamba
    if spec.mamba is MambaLayers.NATIVE or mamba is None:
        return {"mamba": MambaLayers.NATIVE.value}
    report("Mamba kernels")
    dims = KernelDims.of(mamba)
    compiler = compile_image(dims, spec.compute_capability, folder / KERNELS_FILE)
    return {
        "mamba": MambaLayers.PLUGIN.value,
        "mamba_kernels": dims.key,
        "mamba_compiler": compiler,
    }
