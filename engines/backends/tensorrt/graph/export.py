"""From a checkpoint to the graph that TensorRT compiles, and which tensor feeds which input."""

from pathlib import Path

from nemotrt.engines.backends.tensorrt.graph.emitter import BoundWeight, TensorRTEmitter
from nemotrt.engines.backends.tensorrt.graph.options import MambaLayers
from nemotrt.engines.backends.tensorrt.graph.plugin_emitter import MambaPluginEmitter
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.codes.packed import INT4_WORD
from nemotrt.engines.graph.onnx_graph import OnnxGraph
from nemotrt.engines.model.description import describe
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.files.memory import available_bytes

# Source: benchmarks/embedded_weights.py, tensorrt-rtx 1.7.1.116, 2026-11: weights inside the plan
# take 3.0 (bf16) to 3.7 (int8-wo) times their bytes while it is compiled.
EMBEDDING_FACTOR = 3.5
FED = ("input_ids", "lengths", "past")  # inputs that each call brings


def export(
    checkpoint: Checkpoint,
    folder: Path,
    limits: Limits,
    precision: Precision,
    *,
    is_embedded: bool = False,
    mamba: MambaLayers = MambaLayers.NATIVE,
) -> dict[str, BoundWeight]:
    """Write the graph to `folder`; return input name -> the tensor that feeds it.

    With `is_embedded` the weights are constants of the graph, and nothing is returned.
    """
    graph = OnnxGraph(checkpoint.config.model_type, folder)
    kind = MambaPluginEmitter if mamba is MambaLayers.PLUGIN else TensorRTEmitter
    emitter = kind(checkpoint, graph, limits.max_seq_len, precision, is_embedded=is_embedded)
    describe(checkpoint.config, emitter)
    graph.save()
    return emitter.bound


def check_memory(checkpoint: Checkpoint, *, is_embedded: bool) -> None:
    """Raise EnvironmentUnfitError unless a plan with the weights inside can be compiled here.

    int4 codes are inside without `is_embedded` too.
    """
    inside = [ref for ref in checkpoint.tensors.values() if is_embedded or ref.dtype == INT4_WORD]
    needed = EMBEDDING_FACTOR * sum(ref.num_bytes for ref in inside)
    available = available_bytes()
    if available is not None and needed > available:
        what = "--embed-weights" if is_embedded else "int4-wo, whose codes are inside the plan,"
        cure = (
            "leave it out: the weights are then bound when the engine is opened."
            if is_embedded
            else "build it on a larger machine, or build int8-wo."
        )
        raise EnvironmentUnfitError(
            f"{what} needs about {needed / 1e9:.1f} GB of memory to compile "
            f"{checkpoint.path}, and {available / 1e9:.1f} GB are available; {cure}"
        )
