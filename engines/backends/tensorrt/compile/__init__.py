"""The TensorRT backend: compiles the graph into a plan for one GPU, and runs the plan there."""

from nemotrt.engines.backends.protocol.local_gpu import local_compute_capability
from nemotrt.engines.backends.tensorrt.compile.compiler import (
    PLAN_FILE,
    Compiled,
    CompileOptions,
    compile_plan,
)
from nemotrt.engines.backends.tensorrt.compile.flavour import (
    RTX_INSTALL,
    RTX_MODULE,
    check,
    choose,
    tools,
)
from nemotrt.engines.backends.tensorrt.graph.export import check_memory, export

__all__ = [
    "PLAN_FILE",
    "RTX_INSTALL",
    "RTX_MODULE",
    "CompileOptions",
    "Compiled",
    "check",
    "check_memory",
    "choose",
    "compile_plan",
    "export",
    "local_compute_capability",
    "tools",
]
