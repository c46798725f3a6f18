"""The operators of one call: what each reads, writes and multiplies."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from nemotrt.engines.model.model_config import Activation, LayerKind, ModelConfig
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.profiles.planning.time.linears import linears


class Resource(StrEnum):
    """What an operator competes for; the keys of a step's times."""

    WEIGHTS = "weights"
    ATTENTION = "attention"
    SSM = "ssm"
    ELEMENTWISE = "elementwise"
    INTERCONNECT = "interconnect"


@dataclass(frozen=True, slots=True)
class Operator:
    """One kind of kernel, summed over the layers that have it, on one GPU."""

    name: str
    resource: Resource
    num_bytes: float
    num_flops: float = 0.0
    arithmetic: NumberFormat = NumberFormat.BF16
    num_head_elements: float = 0.0  # K and V elements counted once for each query head
    num_launches: int = 1


@dataclass(frozen=True, slots=True)
class Call:
    """What one call of the engine processes.

    `num_pairs` counts (new token, visible token) pairs; `num_cached_tokens` what attention reads.
    """

    num_tokens: int
    num_sequences: int
    num_cached_tokens: float
    num_pairs: float
    is_decode: bool


def decode_call(batch_size: int, context: float) -> Call:
    """Return one new token for each of `batch_size` sequences of `context` tokens."""
    tokens = batch_size * context
    return Call(batch_size, batch_size, tokens, tokens, is_decode=True)


def prefill_call(num_sequences: int, start: int, num_tokens: int) -> Call:
    """Return a chunk of `num_tokens` tokens after `start` cached ones, of each sequence."""
    pairs = num_tokens * (start + num_tokens / 2)
    return Call(
        num_sequences * num_tokens,
        num_sequences,
        num_sequences * (start + num_tokens),
        num_sequences * pairs,
        is_decode=False,
    )


def operators(model: ModelConfig, formats: Formats, call: Call, tp: int = 1) -> Iterator[Operator]:
    """Yield what the call costs one of `tp` GPUs; widths are split, the residual stream is not."""
    width = formats.activation.num_bytes
    hidden, tokens = model.hidden_size, call.num_tokens
    for part in linears(model, formats):
        num_weights = part.num_layers * part.rows * part.columns
        activations = part.num_layers * tokens * (part.rows + part.columns) * width
        yield Operator(
            part.name,
            Resource.WEIGHTS,
            (part.num_bytes + activations) / tp,
            2 * tokens * num_weights / tp,
            part.arithmetic,
            num_launches=part.num_layers,
        )
    num_weights = model.vocab_size * hidden
    head = formats.head_bytes(num_weights) + model.vocab_size * call.num_sequences * 4  # float32
    head_flops = 2 * call.num_sequences * num_weights
    yield Operator("lm_head", Resource.WEIGHTS, head / tp, head_flops / tp, formats.head_arithmetic)
    if model.num_attention_layers:
        yield _attention(model, formats, call, tp)
    if model.num_mamba_layers:
        yield _ssm(model, formats, call, tp)
    yield from _elementwise(model, call, width, tp)
    if tp > 1:
        # Ring all-reduce of the residual after every block.
        sent = 2 * (tp - 1) / tp * tokens * hidden * width
        num_blocks = len(model.layers)
        yield Operator(
            "all_reduce", Resource.INTERCONNECT, num_blocks * sent, num_launches=num_blocks
        )


def _attention(model: ModelConfig, formats: Formats, call: Call, tp: int) -> Operator:
    """Read the cached K and V once a sequence; 4 flops a pair and a query channel."""
    num_layers = model.num_attention_layers
    kv_heads = max(model.num_key_value_heads // tp, 1)
    kv_token = 2 * kv_heads * model.head_dim * formats.kv.num_bytes
    width = formats.activation.num_bytes
    new = call.num_tokens * (kv_token + 2 * model.q_size * width / tp)
    return Operator(
        "attention",
        Resource.ATTENTION,
        num_layers * (call.num_cached_tokens * kv_token + new),
        num_layers * 4 * call.num_pairs * model.q_size / tp,
        formats.activation,
        num_layers * 2 * call.num_pairs * model.q_size / tp if call.is_decode else 0.0,
        num_layers,
    )


def _ssm(model: ModelConfig, formats: Formats, call: Call, tp: int) -> Operator:
    """Read and write the state once a sequence; in a chunk also the quadratic form.

    Source: Mamba-2 paper (arXiv 2405.21060), section 6: C B' (2 C N G), its product with x
    (2 C D), chunk states and their outputs (4 N D) for each token, with chunk C, state N,
    groups G, inner width D. A decode step does 6 N D: decay, update, output.
    """
    mamba, num_layers = model.mamba, model.num_mamba_layers
    assert mamba is not None  # there are Mamba layers
    state = 2 * mamba.ssm_state_elements * formats.ssm.num_bytes
    window = 2 * mamba.conv_state_elements * formats.activation.num_bytes
    moved = call.num_tokens * (2 * mamba.inner_size + mamba.conv_dim) * formats.activation.num_bytes
    if call.is_decode:
        flops = 6 * mamba.state_size * mamba.inner_size
    else:
        chunk, inner = mamba.chunk_size, mamba.inner_size
        group_width = mamba.num_groups * mamba.state_size
        flops = 2 * chunk * group_width + 2 * chunk * inner + 4 * mamba.state_size * inner
    return Operator(
        "ssm",
        Resource.SSM,
        num_layers * (call.num_sequences * (state + window) + moved) / tp,
        num_layers * call.num_tokens * flops / tp,
        formats.activation,
        num_launches=2 * num_layers,  # convolution and scan
    )


def _elementwise(model: ModelConfig, call: Call, width: int, tp: int) -> Iterator[Operator]:
    """Norm with residual add (two reads, two writes of the stream), activation, gated norm."""
    tokens, num_blocks = call.num_tokens, len(model.layers)
    norms = num_blocks * 4 * tokens * model.hidden_size * width
    yield Operator("norms", Resource.ELEMENTWISE, norms, num_launches=num_blocks)
    if num_layers := model.count(LayerKind.MLP):
        num_inputs = 2 if model.activation is Activation.SWIGLU else 1
        moved = num_layers * (num_inputs + 1) * tokens * model.intermediate_size * width / tp
        yield Operator("activation", Resource.ELEMENTWISE, moved, num_launches=num_layers)
    if model.mamba and (num_layers := model.num_mamba_layers):
        moved = num_layers * 3 * tokens * model.mamba.inner_size * width / tp
        yield Operator("gated_norm", Resource.ELEMENTWISE, moved, num_launches=num_layers)
