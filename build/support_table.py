"""`nemotrt build --list`: which GPU takes which precision by which backend, checked how."""

import contextlib

from nemotrt.build import host_backends
from nemotrt.build.engine_builder import compute_capability
from nemotrt.engines import onnxruntime
from nemotrt.engines.native import backend as native
from nemotrt.engines.precision import Precision
from nemotrt.engines.tensorrt import flavour
from nemotrt.errors import ConfigError
from nemotrt.profiles.gpu_profile import known_gpus

COMPILED = "compiled, not executed"
ON_HOST = "compiles on its host, not tried"
WRITTEN = {"edge-llm": "exported, not executed"}
LEGEND = {
    COMPILED: "here, by TensorRT for RTX; its layers checked, its ONNX file run in ONNX Runtime "
    "against the CPU engine",
    ON_HOST: "by ordinary TensorRT from the same ONNX file; driven in tests over a stand-in",
    "written, not executed": "for the engine on the GPU host; names and types as it has them",
    "exported, not executed": "by NVIDIA's exporter, here; the engine is built on the GPU host",
}
NO_FP8 = "no: no FP8 arithmetic"
FP8 = (Precision.FP8, Precision.FP8_DYNAMIC)
PLUGINS = (
    "tensorrt --mamba plugin: each precision of tensorrt, on the GPU's own host: kernels compiled "
    "and emulated, plugins driven over stand-ins; not executed"
)


def rows() -> list[dict[str, str]]:
    """Return one row a GPU and precision: what each GPU backend makes of it."""
    precisions = [item for item in Precision if item is not Precision.FP32]
    return [row(gpu, precision) for gpu in known_gpus() for precision in precisions]


def row(gpu: str, precision: Precision) -> dict[str, str]:
    """Return one row."""
    capability = compute_capability(gpu)
    has_fp8 = flavour.capability_number(capability) >= flavour.FP8_CAPABILITY
    if precision in FP8 and not has_fp8:
        plan = NO_FP8
    else:
        is_here = capability in flavour.AHEAD_OF_TIME
        plan = COMPILED if is_here else ON_HOST
        if precision not in flavour.PRECISIONS:
            plan = "no: not a type of TensorRT's layers"
    names = {"gpu": gpu, "compute_capability": capability, "precision": precision.value}
    hosts = {name: _host(name, capability, precision) for name in host_backends.HOST_BACKENDS}
    return names | {"tensorrt": plan} | hosts


def _host(backend: str, capability: str, precision: Precision) -> str:
    """Return whether a backend of the GPU host takes a precision there."""
    try:
        host_backends.check_gpu(backend, capability, precision)
    except ConfigError as error:
        return NO_FP8 if "no FP8 arithmetic" in error.message else "no"
    return WRITTEN.get(backend, "written, not executed")


def lines() -> list[str]:
    """Return the table as aligned text, GPUs of one compute capability together, and a legend."""
    merged: dict[tuple[str, ...], list[str]] = {}
    for found in rows():
        rest = tuple(value for name, value in found.items() if name != "gpu")
        merged.setdefault(rest, []).append(found["gpu"])
    table = [[", ".join(gpus), *rest] for rest, gpus in merged.items()]
    table.sort(key=lambda line: flavour.capability_number(line[1]))
    cells = [list(rows()[0]), *table]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return [
        *text,
        "",
        *_cpu_lines(),
        PLUGINS,
        "",
        *(f"{word}: {how}" for word, how in LEGEND.items()),
    ]


def _cpu_lines() -> list[str]:
    """Return what each CPU backend builds."""
    found = []
    checks = {"onnxruntime": onnxruntime.check, "native": native.check}
    for backend, check in checks.items():
        taken = []
        for precision in Precision:
            with contextlib.suppress(ConfigError):
                check(precision)
                taken.append(precision.value)
        found.append(f"cpu, {backend}: {', '.join(taken)}: run and tested here")
    return found
