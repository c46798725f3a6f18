"""The bytes of activations that an engine needs beside weights and caches."""

from nemotrt.engines.model_config import Activation, LayerKind, ModelConfig
from nemotrt.profiles.planning.number_format import StoredType

FLOAT32_BYTES = 4
# The residual stream and the block's normed input live through the whole block.
NUM_RESIDUAL_TENSORS = 2


def workspace_bytes(
    model: ModelConfig, activation: StoredType, max_num_tokens: int, max_batch_size: int
) -> int:
    """Return the largest set of tensors alive at once in our graph.

    The graph runs block by block, so the peak is the residual stream plus the widest block;
    the logits are float32, one row a sequence. A prefill chunk of `max_num_tokens` tokens is the
    worst case. The CUDA context is not here: it belongs to the share of memory that
    `--memory-utilization` leaves alone.

    Source: shapes of nemotrt.engines.description; the SSD scan's chunk-quadratic tensors as in
    the Mamba-2 paper (arXiv 2405.21060), section 6.
    """
    width = activation.num_bytes
    residual = NUM_RESIDUAL_TENSORS * model.hidden_size * width * max_num_tokens
    widest = max(_block_bytes(model, kind, width) for kind in set(model.layers)) * max_num_tokens
    logits = model.vocab_size * FLOAT32_BYTES * max_batch_size
    return residual + max(widest, logits)


def _block_bytes(model: ModelConfig, kind: LayerKind, width: int) -> int:
    """Return the bytes of one token's tensors that a block keeps alive together."""
    if kind is LayerKind.MLP:
        num_tensors = 3 if model.activation is Activation.SWIGLU else 2
        return num_tensors * model.intermediate_size * width
    if kind is LayerKind.ATTENTION:
        return (2 * model.q_size + 2 * model.kv_size) * width  # q, k, v and the result
    mamba = model.mamba
    assert mamba is not None  # the reader builds it whenever a Mamba layer exists
    projected = mamba.in_proj_size * width
    convolved = mamba.conv_dim * width
    inner_float32 = 2 * mamba.inner_size * FLOAT32_BYTES  # x * dt, and y
    # Per token one row of the chunk's [heads, chunk, chunk] decay, and of its product with C B'.
    quadratic = 2 * mamba.num_heads * mamba.chunk_size * FLOAT32_BYTES
    return projected + convolved + inner_float32 + quadratic
