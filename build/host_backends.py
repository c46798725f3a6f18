"""The backends whose payload is finished or served on the GPU host: check, write, and what next."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from nemotrt.engines.checkpoint import Checkpoint
from nemotrt.engines.edge_llm import backend as edge_llm
from nemotrt.engines.edge_llm import support as edge_llm_support
from nemotrt.engines.engine import Limits
from nemotrt.engines.precision import Precision
from nemotrt.engines.tensorrt_llm import bundle
from nemotrt.engines.tensorrt_llm_1_2 import backend as trtllm_1_2
from nemotrt.engines.tensorrt_llm_1_2 import support as trtllm_1_2_support

HOST_BACKENDS = ("tensorrt-llm", "edge-llm", "tensorrt-llm-1.2")
Options = dict[str, str | int | float | bool]


@dataclasses.dataclass(frozen=True, slots=True)
class HostChoice:
    """What a payload is written for."""

    compute_capability: str
    precision: Precision
    limits: Limits
    tp_size: int = 1
    is_code_trusted: bool = False


def check_gpu(backend: str, compute_capability: str, precision: Precision) -> None:
    """Raise ConfigError unless the backend has that precision on that GPU, whatever the model."""
    checks = {
        "tensorrt-llm": bundle.check_gpu,
        "edge-llm": edge_llm_support.check_gpu,
        "tensorrt-llm-1.2": trtllm_1_2_support.check_gpu,
    }
    checks[backend](compute_capability, precision)


def check(
    backend: str, checkpoint: Checkpoint, compute_capability: str, precision: Precision, tp: int
) -> None:
    """Raise ConfigError, before any work, unless the backend takes all of that together."""
    checks = {
        "tensorrt-llm": bundle.check,
        "edge-llm": edge_llm_support.check,
        "tensorrt-llm-1.2": trtllm_1_2_support.check,
    }
    checks[backend](checkpoint, compute_capability, precision, tp)


def write(
    backend: str,
    checkpoint: Checkpoint,
    folder: Path,
    choice: HostChoice,
    report: Callable[[str], None] = lambda stage: None,
) -> tuple[Options, dict[str, str]]:
    """Write the payload to `folder`; return what the manifest notes, and the tools' versions."""
    if backend == "edge-llm":
        version, graph = edge_llm.write_export(checkpoint, folder, choice.limits, report)
        options = edge_llm_support.notes(checkpoint, choice.limits)
        options["num_quantized_linears"] = graph.num_quantized_linears
        return options, {"tensorrt-edgellm": version}
    if backend == "tensorrt-llm-1.2":
        trtllm_1_2.write_checkpoint(
            checkpoint,
            folder,
            choice.limits,
            choice.compute_capability,
            choice.precision,
            choice.tp_size,
            report,
        )
        return trtllm_1_2.notes(checkpoint, choice.tp_size), {}
    bundle.write_bundle(
        checkpoint,
        folder,
        choice.limits,
        choice.compute_capability,
        tp_size=choice.tp_size,
        is_code_trusted=choice.is_code_trusted,
    )
    return {"tp_size": choice.tp_size, "is_code_trusted": choice.is_code_trusted}, {}
