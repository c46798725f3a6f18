"""The operators of one call: what each reads, writes and multiplies."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from nemotrt.engines.graph.cost import Cost, Kind, totals
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.profiles.planning.sources.adapters import Adapters
from nemotrt.profiles.planning.time.drafts import Drafts, noted_elements
from nemotrt.profiles.planning.time.engine_profile import DraftStates
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.profiles.planning.time.linears import chosen_share, expert_bytes, linears


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
    has_8bit_cache: bool = False


class Call(NamedTuple):
    """What one call of the engine processes.

    `num_pairs` counts (new token, visible token) pairs; `num_cached_tokens` what attention reads.
    """

    num_tokens: float
    num_sequences: int
    num_cached_tokens: float
    num_pairs: float
    is_decode: bool

    @property
    def num_logits(self) -> float:
        """Tokens whose logits are computed: of a prompt the last alone."""
        return self.num_tokens if self.is_decode else self.num_sequences


def decode_call(batch_size: int, context: float, num_checked: int = 1) -> Call:
    """Return new tokens for each of `batch_size` sequences, of which the first sees `context`.

    There is one of a sequence, and with it the guesses that are checked.
    """
    more = num_checked - 1
    pairs = batch_size * num_checked * (context + more / 2)
    held = batch_size * (context + more)
    return Call(batch_size * num_checked, batch_size, held, pairs, is_decode=True)


def prefill_call(num_sequences: int, start: float, num_tokens: float) -> Call:
    """Return a chunk of `num_tokens` tokens after `start` cached ones, of each sequence."""
    pairs = num_tokens * (start + num_tokens / 2)
    return Call(
        num_sequences * num_tokens,
        num_sequences,
        num_sequences * (start + num_tokens),
        num_sequences * pairs,
        is_decode=False,
    )


def operators(
    model: ModelConfig,
    formats: Formats,
    call: Call,
    tp: int = 1,
    drafts: Drafts | None = None,
    adapters: Adapters | None = None,
) -> Iterator[Operator]:
    """Yield what the call costs one of `tp` GPUs; widths are split, the residual stream is not.

    `drafts` are the guesses that its decode steps check, `adapters` run beside the weights.
    """
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
    head = formats.head_bytes(num_weights) + model.vocab_size * call.num_logits * 4  # float32
    head_flops = 2 * call.num_logits * num_weights
    yield Operator("lm_head", Resource.WEIGHTS, head / tp, head_flops / tp, formats.head_arithmetic)
    if adapters is not None:
        yield Operator(
            "adapters",
            Resource.WEIGHTS,
            adapters.num_bytes(model) / tp,
            2 * tokens * adapters.num_weights(model) / tp,
            formats.activation,
            num_launches=adapters.num_launches(model),
        )
    inside = totals(model)
    if Kind.EXPERTS in inside:
        yield from _experts(model, inside, formats, call, tp)
    if Kind.ATTENTION in inside:
        yield _attention(inside[Kind.ATTENTION], model.num_key_value_heads, formats, call, tp)
    if Kind.SCAN in inside:
        ssm = _ssm(inside[Kind.CONV], inside[Kind.SCAN], formats, call, tp)
        yield _checked(ssm, model, formats, call, tp, drafts) if drafts else ssm
    yield from _elementwise(inside, call, width, tp)
    if tp > 1:
        # Ring all-reduce of the residual after every block.
        added = inside[Kind.ADD]
        sent = 2 * (tp - 1) / tp * tokens * hidden * width
        num_blocks = added.num_operators
        yield Operator(
            "all_reduce", Resource.INTERCONNECT, num_blocks * sent, num_launches=num_blocks
        )


def _experts(
    model: ModelConfig, inside: Mapping[Kind, Cost], formats: Formats, call: Call, tp: int
) -> Iterator[Operator]:
    """The routers, in float32, and of the experts those that the call's tokens choose."""
    moe, router, experts = model.moe, inside[Kind.ROUTER], inside[Kind.EXPERTS]
    assert moe is not None  # else no block has experts
    width, tokens = formats.activation.num_bytes, call.num_tokens
    for name, cost, weights, arithmetic in (
        ("router", router, router.products * 4, formats.activation),
        ("experts", experts, expert_bytes(model, formats), formats.arithmetic),
    ):
        share = chosen_share(moe.num_experts, moe.num_chosen, tokens) if cost is experts else 1
        moved = tokens * (cost.reads + cost.writes) * width
        yield Operator(
            name,
            Resource.WEIGHTS,
            (share * weights + moved) / tp,
            2 * tokens * cost.products / tp,
            arithmetic,
            num_launches=cost.num_operators,
        )


def _attention(cost: Cost, num_heads: int, formats: Formats, call: Call, tp: int) -> Operator:
    """Read the cached K and V once per sequence; new ones are written there alone.

    `num_heads` of K and V are split over the GPUs, at least one each.
    """
    kv_token = cost.cache // num_heads * max(num_heads // tp, 1) * formats.kv.num_bytes
    others = (cost.reads - cost.cache + cost.writes) * formats.activation.num_bytes
    products = call.num_pairs * cost.pair_products
    return Operator(
        "attention",
        Resource.ATTENTION,
        call.num_cached_tokens * kv_token + call.num_tokens * (kv_token + others / tp),
        2 * products / tp,
        formats.activation,
        products / tp if call.is_decode else 0.0,
        cost.num_operators,
        has_8bit_cache=formats.kv.num_bits == 8,
    )


def _ssm(conv: Cost, scan: Cost, formats: Formats, call: Call, tp: int) -> Operator:
    """Read and write the states once per sequence, and between them x, B and C once, x and y."""
    width = formats.activation.num_bytes
    states = 2 * (scan.state * formats.ssm.num_bytes + conv.state * width)
    moved = call.num_tokens * (conv.reads + 2 * scan.writes) * width
    products = scan.products if call.is_decode else scan.chunk_products
    return Operator(
        "ssm",
        Resource.SSM,
        (call.num_sequences * states + moved) / tp,
        2 * call.num_tokens * products / tp,
        formats.activation,
        num_launches=conv.num_operators + scan.num_operators,
    )


def _checked(
    ssm: Operator, model: ModelConfig, formats: Formats, call: Call, tp: int, drafts: Drafts
) -> Operator:
    """Return the scan of a step that checks guesses, with what undoes those that do not hold.

    Where states are replayed, they are read once to check. Then what held of the notes is read,
    and the states again, which are written. Else a state is written for each token.
    """
    if not call.is_decode:
        return ssm
    width = formats.activation.num_bytes
    state = model.ssm_state_elements * formats.ssm.num_bytes + model.conv_state_elements * width
    if drafts.states is not DraftStates.REPLAYED:
        more = (call.num_tokens - call.num_sequences) * state
        return replace(ssm, num_bytes=ssm.num_bytes + more / tp)
    held = drafts.tokens_per_step / drafts.num_checked
    noted = call.num_tokens * noted_elements(model) * width * (1 + held)
    more = call.num_sequences * state + noted
    return replace(ssm, num_bytes=ssm.num_bytes + more / tp, num_flops=ssm.num_flops * (1 + held))


def _elementwise(
    inside: Mapping[Kind, Cost], call: Call, width: int, tp: int
) -> Iterator[Operator]:
    """Norm fused with the residual add, whose sum it needs not read; activation; gated norm."""
    added, normed = inside[Kind.ADD], inside[Kind.NORM]
    residual = (added.reads + added.writes + normed.writes) * call.num_tokens * width
    yield Operator("norms", Resource.ELEMENTWISE, residual, num_launches=added.num_operators)
    for kind in (Kind.ACTIVATION, Kind.GATED_NORM):
        if cost := inside.get(kind):
            moved = (cost.reads + cost.writes) * call.num_tokens * width / tp
            launches = cost.num_operators
            yield Operator(kind.value, Resource.ELEMENTWISE, moved, num_launches=launches)
