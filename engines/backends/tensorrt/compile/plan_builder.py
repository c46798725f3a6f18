"""The TensorRT part of a build: graph, plan, layer report, and the weights that it is fed."""

import dataclasses
import json
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from nemotrt.engines.artefact.manifest import WeightInput
from nemotrt.engines.backends.protocol.backend import BuildJob, Notes, Target
from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt.compile import compiler
from nemotrt.engines.backends.tensorrt.compile.layer_check import LAYERS_FILE, check_layers
from nemotrt.engines.backends.tensorrt.compile.layer_report import LayerReport
from nemotrt.engines.backends.tensorrt.compile.state_proof import (
    LAYOUT_REASON,
    STATE_LAYOUT,
    state_layout,
)
from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims
from nemotrt.engines.backends.tensorrt.device.kernel_image import KERNELS_FILE, compile_image
from nemotrt.engines.backends.tensorrt.graph import export as graph_export
from nemotrt.engines.backends.tensorrt.graph.options import MambaLayers, TensorRTOptions
from nemotrt.engines.checkpoint.codes.packed import INT4_WORD
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.checkpoint.stored.tensor_digest import tensor_digests
from nemotrt.engines.model.tensor_names import linear_names

# What a second build of the same input may have otherwise. Source: 41 builds of a slice of the 9B
# and 16 of the tiny model, tensorrt-rtx 1.7.1.116, 2026-11: two plans differed, in seven bytes.
RENUMBERED = "the numbers of a few internal tensors of engine.plan"
REORDERED = "the order and numbers of internal tensors, in engine.plan and layers.json"


def build_plan(
    target: Target[TensorRTOptions], job: BuildJob
) -> tuple[dict[str, WeightInput], Notes]:
    """Compile a plan into the job's folder; return its weight inputs and what a manifest notes.

    The weights' digests are taken while the compiler runs, which is a process of its own.
    """
    checkpoint, options = target.checkpoint, target.options
    plugins = build_plugins(target, job)
    bound = graph_export.export(
        checkpoint,
        job.folder,
        job.limits,
        target.precision,
        is_embedded=options.is_embedded,
        mamba=options.mamba,
    )
    refs = [checkpoint[weight.tensor] for weight in bound.values()]
    stop = Event()
    with ThreadPoolExecutor(1) as beside:
        digests = beside.submit(tensor_digests, refs, stop)
        try:
            compiled = compiler.compile_plan(
                job.folder,
                job.limits,
                target.capability,
                workspace_bytes=options.workspace_bytes,
                plugins=str(plugins.get("mamba_kernels", "")),
                report=job.report,
            )
        except BaseException:
            stop.set()
            raise
        job.report("weight digests")
        weights = {
            name: WeightInput(sha256=digest, **dataclasses.asdict(weight))
            for (name, weight), digest in zip(bound.items(), digests.result(), strict=True)
        }
    stored = {name: weight.dtype for name, weight in bound.items()}
    stored |= {
        name: INT4_WORD
        for name in linear_names(checkpoint.config)
        if LinearWeight(checkpoint, name).has_int4
    }
    found = check_layers(compiled.report, checkpoint.config, stored, target.precision)
    (job.folder / LAYERS_FILE).write_text(json.dumps(compiled.report.as_json()), encoding="utf-8")
    return weights, {
        **plugins,
        **_layout_notes(compiled.report, target, bound),
        "is_embedded": options.is_embedded,
        "rebuild_differs_in": RENUMBERED if compiled.is_address_space_fixed else REORDERED,
        "kv_cache": "bf16",
        "layer_faults": "; ".join(found.faults),
    }


def _layout_notes(
    report: LayerReport, target: Target[TensorRTOptions], bound: Collection[str]
) -> Notes:
    """Return what a manifest notes of where decode steps write states."""
    if target.options.has_plugins:
        return {STATE_LAYOUT: StateLayout.IN_PLACE.value}
    num_layers = target.checkpoint.config.num_mamba_layers
    if not num_layers:
        return {}
    layout, reason = state_layout(report, num_layers, {*graph_export.FED, *bound})
    notes: Notes = {STATE_LAYOUT: layout.value}
    return notes | ({LAYOUT_REASON: reason} if reason else {})


def build_plugins(target: Target[TensorRTOptions], job: BuildJob) -> Notes:
    """Compile the Mamba plugins' kernels, if they are wanted; return what a manifest notes."""
    mamba = target.checkpoint.config.mamba
    if not target.options.has_plugins or mamba is None:
        return {"mamba": MambaLayers.NATIVE.value}
    job.report("Mamba kernels")
    dims = KernelDims.of(mamba)
    compiler = compile_image(dims, target.capability, job.folder / KERNELS_FILE)
    return {
        "mamba": MambaLayers.PLUGIN.value,
        "mamba_kernels": dims.key,
        "mamba_compiler": compiler,
    }
