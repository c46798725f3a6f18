"""`nemotrt build --list`: which GPU takes which precision by which backend, checked how."""

from nemotrt.build import host_backends
from nemotrt.build.engine_builder import compute_capability
from nemotrt.engines.precision import Precision
from nemotrt.engines.tensorrt import flavour
from nemotrt.errors import ConfigError
from nemotrt.profiles.gpu_profile import known_gpus

COMPILED = "compiled, not executed"
ON_HOST = "compiles on its host, not tried"
WRITTEN = {"edge-llm": "exported, not executed"}
NO_FP8 = "no: no FP8 arithmetic"
FP8 = (Precision.FP8, Precision.FP8_DYNAMIC)


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
    """Return the table as aligned text."""
    table = rows()
    cells = [list(table[0]), *(list(row.values()) for row in table)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
