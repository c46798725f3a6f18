"""The bytes of activations that an engine needs beside weights and caches."""

from dataclasses import dataclass
from functools import cache

from nemotrt.engines.graph.cost import Kind, costs
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.profiles.planning.time.engine_profile import Scratch

FLOAT32_BYTES = 4
# Inside a scan: x * dt and y, and the decay of a chunk with its product with C B', in float32.
# Source: the chunk-quadratic tensors of the Mamba-2 paper (arXiv 2405.21060), section 6.
SCAN_COPIES = 2
# The residual stream and the block's normed input live through the whole block.
NUM_RESIDUAL_TENSORS = 2
RESIDUAL = (Kind.EMBED, Kind.NORM, Kind.LINEAR, Kind.ADD)  # operators of no tensors but those
# What TensorRT's fused attention of prompt chunks reads: keys and values copied for every query
# head. Source: layer reports of tensorrt-rtx 1.7.1.116, kernels before _gemm_mha_v2.
COPIES_OF_CACHE = 2


@dataclass(frozen=True, slots=True)
class PromptCall:
    """The largest prompt call: new tokens of each sequence, and how many a cache may hold."""

    num_tokens: int
    max_seq_len: int
    num_sequences: int = 1


def workspace_bytes(
    model: ModelConfig,
    activation: NumberFormat,
    prompt: PromptCall,
    max_batch_size: int,
    scratch: Scratch,
) -> int:
    """Return the largest set of tensors alive at once.

    Blocks run one by one, so the peak is the residual stream plus the widest block; the logits
    are float32, one row per sequence. Our graph in TensorRT also keeps attention's copies of the
    cache and its mask. The CUDA context is not here: it belongs to the share of memory that
    `--memory-utilization` leaves alone.

    Source: shapes of nemotrt.engines.model.description. Tests hold `Scratch.GRAPH` against the
    compiler's own figures: 0.85 to 1.3 times as much.
    """
    width, num_tokens = activation.num_bytes, prompt.num_sequences * prompt.num_tokens
    chunk = model.mamba.chunk_size if model.mamba else 0
    if scratch is Scratch.GRAPH:  # whose scan takes the call of a sequence as one chunk
        chunk = prompt.num_tokens
    widest = max(
        live * width + (in_float32 + chunk * by_chunk) * FLOAT32_BYTES
        for live, in_float32, by_chunk in _live(model)
    )
    residual = NUM_RESIDUAL_TENSORS * model.hidden_size * width
    logits = model.vocab_size * FLOAT32_BYTES * max_batch_size
    kept = residual * num_tokens + max(widest * num_tokens, logits)
    return kept + (_attention_copies(model, width, prompt) if scratch is Scratch.GRAPH else 0)


def _attention_copies(model: ModelConfig, width: int, prompt: PromptCall) -> int:
    """Return the bytes of TensorRT's copies of a layer's cache, and of its mask."""
    if not model.num_attention_layers:
        return 0
    columns = COPIES_OF_CACHE * model.q_size + prompt.num_tokens
    return prompt.num_sequences * prompt.max_seq_len * columns * width


@cache
def _live(model: ModelConfig) -> frozenset[tuple[int, int, int]]:
    """Return what the blocks' operators keep alive for a token, beside the residual tensors.

    That is the whole of what wrote their inputs and their results; of a scan also its insides. The
    elements are in the activations' format, in float32, and in float32 for each token of a chunk.
    """
    found = set()
    every = costs(model)
    for cost in every:
        inputs = sum(every[number].writes for number in set(cost.inputs))
        if cost.kind is Kind.SCAN:
            insides = SCAN_COPIES * cost.writes, SCAN_COPIES * cost.chunk_writes
            found.add((inputs, *insides))
        elif cost.kind is Kind.EXPERTS and model.moe is not None:  # a row for each chosen expert
            rows = model.moe.num_chosen * (model.moe.intermediate_size + cost.writes)
            found.add((inputs + rows + cost.writes, 0, 0))
        elif cost.kind not in RESIDUAL:
            found.add((inputs + cost.writes, 0, 0))
    return frozenset(found)
