"""The bytes of activations that an engine needs beside weights and caches."""

from dataclasses import dataclass

from nemotrt.engines.model_config import Activation, LayerKind, MambaConfig, ModelConfig
from nemotrt.profiles.planning.engine_profile import Scratch
from nemotrt.profiles.planning.number_format import StoredType

FLOAT32_BYTES = 4
# The residual stream and the block's normed input live through the whole block.
NUM_RESIDUAL_TENSORS = 2
# float32 tensors of [heads, tokens, tokens], [tokens, heads * head_dim] and [heads, head_dim,
# states] that TensorRT keeps alive together in our scan. Source: what TensorRT for RTX 1.7 says
# that plans of one Mamba layer need, 32 to 128 heads, 128 to 512 tokens: within 12 %.
GRAPH_DECAYS, GRAPH_INNERS, GRAPH_STATES = 2, 7, 2


@dataclass(frozen=True, slots=True)
class Prompt:
    """The largest prompt call: new tokens of one sequence, and how many its cache may hold."""

    num_tokens: int
    max_seq_len: int


def workspace_bytes(
    model: ModelConfig,
    activation: StoredType,
    prompt: Prompt,
    max_batch_size: int,
    scratch: Scratch,
) -> int:
    """Return the largest set of tensors alive at once.

    Blocks run one by one, so the peak is the residual stream plus the widest block; the logits
    are float32, one row a sequence. The CUDA context is not here: it belongs to the share of
    memory that `--memory-utilization` leaves alone.

    Source: shapes of nemotrt.engines.description; for `Scratch.GRAPH` those of the standard
    emitter, as far as the compiler keeps them.
    """
    width, num_tokens = activation.num_bytes, prompt.num_tokens
    residual = NUM_RESIDUAL_TENSORS * model.hidden_size * width * num_tokens
    widest = max(_block_bytes(model, kind, width, prompt, scratch) for kind in set(model.layers))
    logits = model.vocab_size * FLOAT32_BYTES * max_batch_size
    return residual + max(widest, logits)


def _block_bytes(
    model: ModelConfig, kind: LayerKind, width: int, prompt: Prompt, scratch: Scratch
) -> int:
    """Return the bytes of the tensors that a block keeps alive together."""
    num_tokens = prompt.num_tokens
    if kind is LayerKind.MLP:
        num_tensors = 3 if model.activation is Activation.SWIGLU else 2
        return num_tensors * model.intermediate_size * width * num_tokens
    if kind is LayerKind.ATTENTION:
        # q, k, v and the result
        projected = (2 * model.q_size + 2 * model.kv_size) * width * num_tokens
        if scratch is Scratch.FUSED:
            return projected
        # The mask as bytes, once of a token and once of each of its heads.
        return projected + (model.num_attention_heads + 1) * num_tokens * prompt.max_seq_len
    assert model.mamba is not None  # the reader builds it whenever a Mamba layer exists
    if scratch is Scratch.GRAPH:
        return _graph_scan_bytes(model.mamba, num_tokens)
    return _fused_scan_bytes(model.mamba, width) * num_tokens


def _fused_scan_bytes(mamba: MambaConfig, width: int) -> int:
    """Return the bytes a token of a scan in chunks of the model's size.

    Source: the chunk-quadratic tensors of the Mamba-2 paper (arXiv 2405.21060), section 6.
    """
    projected = mamba.in_proj_size * width
    convolved = mamba.conv_dim * width
    inner_float32 = 2 * mamba.inner_size * FLOAT32_BYTES  # x * dt, and y
    # Per token one row of the chunk's [heads, chunk, chunk] decay, and of its product with C B'.
    quadratic = 2 * mamba.num_heads * mamba.chunk_size * FLOAT32_BYTES
    return projected + convolved + inner_float32 + quadratic


def _graph_scan_bytes(mamba: MambaConfig, num_tokens: int) -> int:
    """Return the bytes of our graph's scan: all new tokens of the sequence are one chunk."""
    elements = (
        GRAPH_DECAYS * mamba.num_heads * num_tokens**2
        + GRAPH_INNERS * mamba.inner_size * num_tokens
        + GRAPH_STATES * mamba.inner_size * mamba.state_size
    )
    return elements * FLOAT32_BYTES
