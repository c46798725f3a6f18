"""The TensorRT backend: compiles the graph into a plan for one GPU, here or on the GPU's host.

TensorRT for RTX compiles ahead of time on a machine without a GPU, for the compute capabilities in
AHEAD_OF_TIME. Running a plan needs the GPU and is not part of this module yet.
"""

from importlib import import_module, util
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nemotrt.engines.checkpoint import Checkpoint
from nemotrt.engines.description import describe
from nemotrt.engines.engine import Limits
from nemotrt.engines.onnx_graph import GRAPH_FILE, OnnxGraph
from nemotrt.engines.precision import Precision
from nemotrt.errors import ConfigError, EnvironmentUnfitError, NemotrtError

PLAN_FILE = "engine.plan"
# Source: tried with tensorrt-rtx 1.7.1.116, 2026-11: these compile without a driver; 9.0 is not
# among its targets.
AHEAD_OF_TIME = {"8.0": "SM80", "8.6": "SM86", "8.9": "SM89"}
RTX_MODULE = "tensorrt_rtx_bindings"
RTX_INSTALL = "pip install 'nemotrt[rtx]'"
PREFILL_BATCH = 4  # sequences whose prompt chunks one call may take


def check(compute_capability: str, precision: Precision) -> None:
    """Raise unless a plan for the GPU can be compiled on this machine.

    Raises:
        ConfigError: the hardware or this backend has no such precision.
        EnvironmentUnfitError: the compiler is not installed, or the target has none here.
    """
    from nemotrt.engines.emitters.tensorrt import PRECISIONS

    if precision in (Precision.FP8, Precision.FP8_DYNAMIC) and compute_capability < "8.9":
        raise ConfigError(
            f"compute capability {compute_capability} has no FP8 arithmetic; "
            "use --precision int8-wo or bf16."
        )
    if precision not in PRECISIONS:
        names = ", ".join(PRECISIONS)
        raise ConfigError(f"backend tensorrt does not build {precision} yet; it builds {names}.")
    if compute_capability not in AHEAD_OF_TIME:
        raise EnvironmentUnfitError(
            f"compute capability {compute_capability} can't be compiled for ahead of time (only "
            f"{', '.join(AHEAD_OF_TIME)}); build on that GPU's host with "
            "pip install 'nemotrt[tensorrt]'."
        )
    if util.find_spec(RTX_MODULE) is None:
        raise EnvironmentUnfitError(
            f"compiling TensorRT plans without a GPU needs TensorRT for RTX: {RTX_INSTALL}."
        )


def export(
    checkpoint: Checkpoint, folder: Path, limits: Limits, precision: Precision
) -> dict[str, tuple[str, str, tuple[int, ...]]]:
    """Write the graph to `folder`; return input name -> (tensor, dtype, shape) of its weights."""
    from nemotrt.engines.emitters.tensorrt import TensorRTEmitter

    graph = OnnxGraph(checkpoint.config.model_type, folder)
    emitter = TensorRTEmitter(checkpoint, graph, limits.max_seq_len, precision)
    describe(checkpoint.config, emitter)
    graph.save()
    return {name: (w.tensor, w.dtype, w.shape) for name, w in emitter.bound.items()}


def compile_plan(folder: Path, limits: Limits, compute_capability: str) -> None:
    """Compile the graph in `folder` into PLAN_FILE beside it.

    The plan has two optimization profiles: 0 for decode (one token a sequence), 1 for prompt
    chunks.

    Raises:
        NemotrtError: TensorRT refuses the graph; its own messages say why.
    """
    trt = import_module(RTX_MODULE)
    log = _log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(folder / GRAPH_FILE)):
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        raise NemotrtError(f"TensorRT can't parse the graph: {' '.join(errors + log.lines)}")
    config = builder.create_builder_config()
    batch = limits.max_batch_size
    decode = ((1, 1), (batch, 1), (batch, 1))
    chunk = limits.chunk_tokens
    many = min(batch, PREFILL_BATCH)
    prefill = ((1, min(2, chunk)), (1, chunk), (many, chunk))
    for shapes in (decode, prefill):
        config.add_optimization_profile(_profile(builder, network, shapes))
    config.num_compute_capabilities = 1
    target = getattr(trt.ComputeCapability, AHEAD_OF_TIME[compute_capability])
    config.set_compute_capability(target, 0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise NemotrtError(f"TensorRT can't compile the graph: {' '.join(log.lines)}")
    (folder / PLAN_FILE).write_bytes(plan)


def _profile(builder: Any, network: Any, shapes: tuple[tuple[int, int], ...]) -> Any:
    """Return an optimization profile for (batch, tokens) at their minimum, usual and maximum."""
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if -1 not in tuple(tensor.shape):
            continue
        free = [axis for axis, size in enumerate(tensor.shape) if size == -1]
        bounds = []
        for sizes in shapes:
            shape = list(tensor.shape)
            for axis, size in zip(free, sizes, strict=False):  # B, then T where there is one
                shape[axis] = size
            bounds.append(tuple(shape))
        profile.set_shape(tensor.name, *bounds)
    return profile


def _log(trt: Any) -> Any:
    """Return a TensorRT logger that keeps its errors for our message."""

    class Log(trt.ILogger):  # type: ignore[misc]
        """Collects errors; the rest is dropped."""

        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.lines.append(message)

    return Log()


def tools() -> dict[str, str]:
    """Return the versions of what the plan depends on."""
    return {"onnx": version("onnx"), "tensorrt-rtx": version("tensorrt-rtx-cu13-libs")}
