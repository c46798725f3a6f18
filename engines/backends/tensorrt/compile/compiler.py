"""Compiles a graph into a plan, in a process of its own.

The process has a fixed address space where the system allows that, so the same graph gives the
same plan but for the numbers of a few internal tensors, which hang on the timing of the compiler's
threads. Its memory is measured by itself, and Ctrl-C ends it at once.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nemotrt.engines.backends.protocol.own_runtime import prefill_batch
from nemotrt.engines.backends.tensorrt.compile.flavour import Flavour, choose
from nemotrt.engines.backends.tensorrt.compile.layer_report import LayerReport, parse_layers
from nemotrt.engines.backends.tensorrt.compile.refusals import NO_KERNEL, explain
from nemotrt.engines.backends.tensorrt.device.kernel_image import KERNELS_FILE
from nemotrt.engines.backends.tensorrt.graph.fitness import AHEAD_OF_TIME
from nemotrt.engines.graph.onnx_graph import GRAPH_FILE
from nemotrt.engines.runtime.engine import Limits
from nemotrt.errors import ChildProcessFailedError
from nemotrt.files.user_cache import user_cache

PLAN_FILE = "engine.plan"
SCRIPT = Path(__file__).with_name("compiler_process.py")
DECODE_PROFILE, PREFILL_PROFILE = 0, 1
REPORT_S = 0.25  # progress is shown at most this often
# From a length on, a decode step's attention kernel is there for many sequences alone: with 24,576
# tokens of the 9B for 5 on 8.6, 7 on 8.0, 8 on 8.9. Source: as in refusals.py. A profile for more
# sequences than the engine holds has the same kernel, and 0.3 MB more of activations.
PADDED_BATCH = 16
PLUGIN_FAULT = "[ERROR] Exception "  # how the binding begins what a plugin of ours raised
KEPT = (
    *("PATH", "LD_LIBRARY_PATH", "HOME", "VIRTUAL_ENV", "PYTHONPATH"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compilation cost, and what it made."""

    seconds: float
    cpu_seconds: float  # of the compiler's process: what a quiet machine would take, about
    peak_bytes: int
    is_address_space_fixed: bool  # else another build orders the plan's tensors in another way
    report: LayerReport


def profiles(limits: Limits, least_batch: int = 1) -> list[tuple[tuple[int, int], ...]]:
    """Return (batch, tokens) at minimum, usual and maximum: of decode, then of prompt chunks.

    Decode takes `least_batch` sequences at least, though the engine may hold fewer.
    """
    batch, chunk = limits.max_batch_size, limits.chunk_tokens
    decode = ((1, 1), (batch, 1), (max(batch, least_batch), 1))
    prefill = ((1, min(2, chunk)), (1, chunk), (prefill_batch(batch, chunk), chunk))
    return [decode, prefill]


def compile_plan(
    folder: Path,
    limits: Limits,
    compute_capability: str,
    *,
    workspace_bytes: int = 0,
    cache: Path | None = None,
    plugins: str = "",
    report: Callable[[str], None] = lambda stage: None,
) -> Compiled:
    """Compile the graph in `folder` into PLAN_FILE beside it.

    Args:
        folder: holds GRAPH_FILE.
        limits: bound the two optimization profiles: 0 for decode, 1 for prompt chunks.
        compute_capability: of the GPU to compile for.
        workspace_bytes: of scratch memory; 0 is TensorRT's own choice.
        cache: the compiler's measurements; default `timing_cache`.
        plugins: the key of the kernels in the folder's KERNELS_FILE; "" for no plugins.
        report: called with what the compiler does, a few times per second.

    Raises:
        ChildProcessFailedError: TensorRT refuses the graph; its own messages say why.
        EnvironmentUnfitError: nothing here compiles for that GPU.
    """
    flavour = choose(compute_capability, has_plugins=bool(plugins))
    cache = cache or timing_cache(flavour)
    request = {
        "module": flavour.module,
        "graph": GRAPH_FILE,
        "plan": PLAN_FILE,
        "profiles": profiles(limits),
        "target": AHEAD_OF_TIME[compute_capability] if flavour.is_ahead_of_time else None,
        "workspace_bytes": workspace_bytes,
        "plugins": {"image": KERNELS_FILE, "key": plugins} if plugins else None,
        "timing_cache": str(cache.resolve()) if cache else None,
    }
    start = time.monotonic()
    try:
        done = _run(request, folder, report)
    except ChildProcessFailedError as error:
        if NO_KERNEL not in error.message or limits.max_batch_size >= PADDED_BATCH:
            raise
        request["profiles"] = profiles(limits, PADDED_BATCH)
        done = _run(request, folder, report)
    return Compiled(
        seconds=time.monotonic() - start,
        cpu_seconds=done["cpu_seconds"],
        peak_bytes=done["peak_bytes"],
        is_address_space_fixed=done["is_address_space_fixed"],
        report=_report(done["layers"], done["activation_bytes"]),
    )


def _report(lines: list[str], activation_bytes: list[int]) -> LayerReport:
    """Return the layer report; without layers where this version of TensorRT words them anew."""
    try:
        layers = parse_layers(lines)
    except ValueError:
        layers = ()
    return LayerReport(layers, tuple(activation_bytes))


def timing_cache(flavour: Flavour) -> Path | None:
    """Return where a flavour keeps its measurements of kernels; one without a GPU makes none."""
    if flavour.is_ahead_of_time:
        return None
    path = user_cache() / f"timing-{flavour.name}-{flavour.version()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _run(request: dict[str, Any], folder: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Run the compiler's process in `folder`; return its last event."""
    command = [sys.executable, "-P", str(SCRIPT)]
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"PYTHONHASHSEED": "0", "CUDA_MODULE_LOADING": "LAZY"}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            with process.stdin:
                process.stdin.write(json.dumps(request))
            last = _follow(process.stdout, report)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if "done" in last:
            done: dict[str, Any] = last["done"]
            return done
        errors.seek(0)
        raise _failure(command, code, last.get("errors", []), errors.read(), folder / GRAPH_FILE)


def _follow(events: IO[str], report: Callable[[str], None]) -> dict[str, Any]:
    """Report progress until the stream ends; return its last event."""
    last: dict[str, Any] = {}
    shown = 0.0
    for line in events:
        last = json.loads(line)
        if "phase" in last and time.monotonic() - shown > REPORT_S:
            shown = time.monotonic()
            report(f"TensorRT: {last['phase'].lower()} {last['step']}/{last['num_steps']}")
    return last


def _failure(
    command: list[str], code: int, refusals: list[str], stderr: str, graph: Path
) -> ChildProcessFailedError:
    """Return the error for a compiler that refused (`refusals`) or died."""
    if refusals:
        raised = [line for line in stderr.splitlines() if line.startswith(PLUGIN_FAULT)]
        words = " ".join([explain(refusals, graph), *dict.fromkeys(raised)])
        return ChildProcessFailedError(f"TensorRT can't compile the graph, {words}")
    how = f"by signal {-code}" if code < 0 else f"with code {code}"
    hint = " (the system's memory ran out?)" if code == -9 else ""
    tail = " ".join(stderr.splitlines()[-5:])
    return ChildProcessFailedError(
        f"the compiler ({' '.join(command)}) ended {how}{hint}. {tail}".rstrip()
    )
