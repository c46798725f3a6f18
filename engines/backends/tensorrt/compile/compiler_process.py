"""The process that compiles: reads a request from stdin, writes events to stdout, one per line.

It runs as a script and imports the binding alone, so that nothing but the request decides where
its memory lies: TensorRT orders tensors by address. Its parent is `compiler.py`.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ADDR_NO_RANDOMIZE = 0x0040000  # Source: sys/personality.h
PR_SET_PDEATHSIG = 1  # Source: sys/prctl.h
FIXED = "NEMOTRT_COMPILER_IS_FIXED"
LAYERS = "Layers:\n"  # how the builder's log begins its list of layers


def main() -> None:
    """Fix the address space, which takes a new start, then compile."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if FIXED not in os.environ:
        is_fixed = libc.personality(libc.personality(0xFFFFFFFF) | ADDR_NO_RANDOMIZE) != -1
        arguments = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, os.environ | {FIXED: str(int(is_fixed))})
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints goes to stderr

    def emit(**event: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(event), file=out, flush=True)

    request = json.load(sys.stdin)
    _compile(import_module(request["module"]), request, emit)


def _compile(trt: Any, request: dict[str, Any], emit: Any) -> None:
    """Compile, write the plan, and emit either `errors` or `done`."""
    log = _log(trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not _parse(parser, request):
        emit(errors=log.errors or [str(parser.get_error(i)) for i in range(parser.num_errors)])
        return
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for shapes in request["profiles"]:
        config.add_optimization_profile(_profile(builder, network, shapes))
    if request["target"]:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, request["target"]), 0)
    if request["plugins"]:
        config.set_preview_feature(trt.PreviewFeature.ALIASED_PLUGIN_IO_10_03, True)
    if request["workspace_bytes"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request["workspace_bytes"])
    cache = Path(request["timing_cache"]) if request["timing_cache"] else None
    if cache:
        known = b""
        with contextlib.suppress(OSError):  # none yet, or none that can be read
            known = cache.read_bytes()
        config.set_timing_cache(config.create_timing_cache(known), False)
    monitor = _monitor(trt, emit)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        emit(errors=log.errors)
        return
    Path(request["plan"]).write_bytes(plan)
    if cache:
        with contextlib.suppress(OSError):  # the plan is there; the next one takes longer
            cache.write_bytes(config.get_timing_cache().serialize())
    layers, activation_bytes = log.layers, log.activation_bytes
    if not request["target"]:
        layers, activation_bytes = _inspect(trt, log, plan)
    used = resource.getrusage(resource.RUSAGE_SELF)
    emit(
        done={
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "peak_bytes": used.ru_maxrss * 1024,
            "is_address_space_fixed": os.environ[FIXED] == "1",
            "layers": layers,
            "activation_bytes": activation_bytes,
        }
    )


def _inspect(trt: Any, log: Any, plan: Any) -> tuple[list[str], list[int]]:
    """Return the layers and the activations' sizes of a plan for this host's own GPU."""
    engine = trt.Runtime(log).deserialize_cuda_engine(plan)
    if engine is None:
        return [], []
    kind = trt.LayerInformationFormat.ONELINE
    text = engine.create_engine_inspector().get_engine_information(kind)
    lines = [line for line in text.splitlines() if line.startswith("Name: ")]
    profiles = range(engine.num_optimization_profiles)
    return lines, [engine.get_device_memory_size_for_profile_v2(index) for index in profiles]


def _parse(parser: Any, request: dict[str, Any]) -> bool:
    """Read the graph; with plugins without the bodies that stand for them elsewhere."""
    if not request["plugins"]:
        return bool(parser.parse_from_file(request["graph"]))
    registration = import_module("nemotrt.engines.backends.tensorrt.plugins.registration")
    registration.register(Path(request["plugins"]["image"]), request["plugins"]["key"])
    onnx = import_module("onnx")
    model = onnx.load(request["graph"], load_external_data=False)
    del model.functions[:]
    return bool(parser.parse(model.SerializeToString(), request["graph"]))


def _profile(builder: Any, network: Any, shapes: list[list[int]]) -> Any:
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
    """Return a logger that keeps the errors, the layers and the activations' sizes."""
    activations = "Total Activation Memory: "

    class Log(trt.ILogger):  # type: ignore[misc]
        """Keeps what the parent wants; the rest is dropped."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self.layers: list[str] = []
            self.activation_bytes: list[int] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.errors.append(message)
            elif message.startswith(activations):
                self.activation_bytes.append(int(message.removeprefix(activations).split()[0]))
            elif LAYERS in message:
                body = message.partition(LAYERS)[2]
                self.layers = [line for line in body.splitlines() if line.startswith("Name: ")]
                marks = [i for i, line in enumerate(self.layers) if "IOMode: " in line]
                del self.layers[min(marks, default=len(self.layers)) :]

    return Log()


def _monitor(trt: Any, emit: Any) -> Any:
    """Return a progress monitor that emits each phase's steps."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Emits the phases that have more than a handful of steps."""

        def __init__(self) -> None:
            super().__init__()
            self.totals: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, num_steps: int) -> None:
            self.totals[phase] = num_steps
            if num_steps > 2:
                emit(phase=phase, step=0, num_steps=num_steps)

        def step_complete(self, phase: str, step: int) -> bool:
            if self.totals.get(phase, 0) > 2:
                emit(phase=phase, step=step + 1, num_steps=self.totals[phase])
            return True

        def phase_finish(self, phase: str) -> None:
            self.totals.pop(phase, None)

    return Monitor()


if __name__ == "__main__":
    main()
