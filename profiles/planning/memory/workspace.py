"""The bytes of activations that an engine needs beside weights and caches."""

from dataclasses import dataclass

from nemotrt.engines.model.model_config import Activation, LayerKind, MambaConfig, ModelConfig
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.profiles.planning.time.engine_profile import Scratch

FLOAT32_BYTES = 4
# The residual stream and the block's normed input live through the whole block.
NUM_RESIDUAL_TENSORS = 2
# What TensorRT's fused attention of prompt chunks reads: keys and values copied for every query
# head. Source: layer reports of tensorrt-rtx 1.7.1.116, kernels before _gemm_mha_v2.
COPIES_OF_CACHE = 2


@dataclass(frozen=True, slots=True)
class Prompt:
    """The largest prompt call: new tokens of each sequence, and how many a cache may hold."""

    num_tokens: int
    max_seq_len: int
    num_sequences: int = 1


def workspace_bytes(
    model: ModelConfig,
    activation: NumberFormat,
    prompt: Prompt,
    max_batch_size: int,
    scratch: Scratch,
) -> int:
    """Return the largest set of tensors alive at once.

    Blocks run one by one, so the peak is the residual stream plus the widest block; the logits
    are float32, one row a sequence. Our graph in TensorRT also keeps attention's copies of the
    cache and its mask. The CUDA context is not here: it belongs to the share of memory that
    `--memory-utilization` leaves alone.

    Source: shapes of nemotrt.engines.model.description. Tests hold `Scratch.GRAPH` against the
    compiler's own figures: 0.85 to 1.3 times as much.
    """
    width, num_tokens = activation.num_bytes, prompt.num_sequences * prompt.num_tokens
    # Our graph's scan takes the call of a sequence as one chunk.
    chunk = prompt.num_tokens if scratch is Scratch.GRAPH else 0
    widest = max(_block_bytes(model, kind, width, chunk) for kind in set(model.layers))
    residual = NUM_RESIDUAL_TENSORS * model.hidden_size * width
    logits = model.vocab_size * FLOAT32_BYTES * max_batch_size
    kept = residual * num_tokens + max(widest * num_tokens, logits)
    return kept + (_attention_copies(model, width, prompt) if scratch is Scratch.GRAPH else 0)


def _attention_copies(model: ModelConfig, width: int, prompt: Prompt) -> int:
    """Return the bytes of TensorRT's copies of a layer's cache, and of its mask."""
    if not model.num_attention_layers:
        return 0
    columns = COPIES_OF_CACHE * model.q_size + prompt.num_tokens
    return prompt.num_sequences * prompt.max_seq_len * columns * width


def _block_bytes(model: ModelConfig, kind: LayerKind, width: int, chunk: int) -> int:
    """Return the bytes of one token's tensors that a block keeps alive together."""
    if kind is LayerKind.MLP:
        num_tensors = 3 if model.activation is Activation.SWIGLU else 2
        return num_tensors * model.intermediate_size * width
    if kind is LayerKind.ATTENTION:
        return (2 * model.q_size + 2 * model.kv_size) * width  # q, k, v and the result
    assert model.mamba is not None  # the reader builds it whenever a Mamba layer exists
    return _scan_bytes(model.mamba, width, chunk or model.mamba.chunk_size)


def _scan_bytes(mamba: MambaConfig, width: int, chunk: int) -> int:
    """Return the bytes a token of a scan in chunks of `chunk` tokens.

    Source: the chunk-quadratic tensors of the Mamba-2 paper (arXiv 2405.21060), section 6.
    """
    projected = mamba.in_proj_size * width
    convolved = mamba.conv_dim * width
    inner_float32 = 2 * mamba.inner_size * FLOAT32_BYTES  # x * dt, and y
    # Per token one row of the chunk's [heads, chunk, chunk] decay, and of its product with C B'.
    quadratic = 2 * mamba.num_heads * chunk * FLOAT32_BYTES
    return projected + convolved + inner_float32 + quadratic
