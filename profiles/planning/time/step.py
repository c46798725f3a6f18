"""The time of one decode step and of a prefill, by operator."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from operator import add

from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.profiles.planning.sources.adapters import Adapters
from nemotrt.profiles.planning.sources.windows import Windows
from nemotrt.profiles.planning.time.drafts import Drafts
from nemotrt.profiles.planning.time.engine_profile import EngineProfile
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.profiles.planning.time.linears import chosen_share
from nemotrt.profiles.planning.time.operators import (
    Call,
    Operator,
    Resource,
    decode_call,
    operators,
    prefill_call,
)
from nemotrt.profiles.planning.time.roofline import Roofline


@dataclass(frozen=True, slots=True)
class StepTime:
    """Milliseconds of one call, by what it waits for."""

    weights: float
    attention: float
    ssm: float
    elementwise: float
    interconnect: float
    overhead: float
    total: float

    @property
    def bound_by(self) -> str:
        """The largest part."""
        parts = [item.name for item in fields(self) if item.name != "total"]
        return max(parts, key=lambda name: float(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class ShardedModel:
    """A model in its formats on `tp` GPUs.

    `cache_tokens` is the length of a cache that attention reads whole, whatever a sequence holds;
    0 where it reads what is held.
    """

    model: ModelConfig
    formats: Formats
    tp: int = 1
    cache_tokens: int = 0
    windows: Windows | None = None
    drafts: Drafts | None = None
    adapters: Adapters | None = None

    @property
    def num_checked(self) -> int:
        """Tokens of a sequence in a decode step."""
        return self.drafts.num_checked if self.drafts else 1

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a decode step gives a sequence."""
        return self.drafts.tokens_per_step if self.drafts else 1

    def operators(self, call: Call) -> Iterator[Operator]:
        """Yield what a call costs one of the GPUs."""
        if self.cache_tokens:
            call = call._replace(
                num_cached_tokens=call.num_sequences * self.cache_tokens,
                num_pairs=call.num_tokens * self.cache_tokens,
            )
        beside = self.drafts, self.adapters
        return operators(self.model, self.formats, self.seen(call), self.tp, *beside)

    def seen(self, call: Call) -> Call:
        """Return the call with what its attention layers read and multiply on average.

        A new token sees no more than the window, and a call reads it once for a sequence. Between
        the first token and a window's end this counts up to twice the products.
        """
        windows = self.windows
        if windows is None:
            return call
        read = call.num_sequences * (windows.tokens - 1) + call.num_tokens
        read = min(call.num_cached_tokens, read)
        pairs = min(call.num_pairs, call.num_tokens * windows.tokens)
        return call._replace(
            num_cached_tokens=_mean(call.num_cached_tokens, read, windows.share),
            num_pairs=_mean(call.num_pairs, pairs, windows.share),
        )


def _mean(whole: float, part: float, share: float) -> float:
    """Return the mean of two counts, `share` of the second."""
    return whole + share * (part - whole)


def step_time(sharded: ShardedModel, on: Roofline, call: Call) -> StepTime:
    """Return the time of one call, operators one after the other."""
    times = dict.fromkeys(Resource, 0.0)
    found = [
        *sharded.operators(call),
        *choosing(sharded.model, on.engine, call),
    ]
    on = on.on_call(found, call.is_decode, sharded.tp)
    for operator in found:
        times[operator.resource] += on.seconds(operator)
    launches = on.engine.launches
    counted = sum(operator.num_launches for operator in found)
    num_launches = launches.of(sharded.model) if launches else counted
    overhead = on.overhead_s(num_launches, call.num_sequences)
    parts = {resource.value: seconds * 1e3 for resource, seconds in times.items()}
    total = max(sum(times.values()) + overhead, on.host_s(call.num_sequences)) * 1e3
    return StepTime(**parts, overhead=total - sum(parts.values()), total=total)


def call_seconds(sharded: ShardedModel, on: Roofline) -> Callable[[Call], float]:
    """Return what `step_time` says of a call in total, in seconds, for thousands of calls.

    On a GPU all that an operator moves and multiplies grows evenly with each of a call's counts,
    and with the share of the experts that its tokens choose. So the factors are worked out once.
    """
    moe = sharded.model.moe
    if on.gpu.kind == "cpu":  # whose cache holds a call, or not
        return lambda call: step_time(sharded, on, call).total / 1e3
    whole = replace(sharded, windows=None)  # whose calls are seen already
    rates = {is_decode: _rates(whole, on, is_decode) for is_decode in (True, False)}

    def seconds(call: Call) -> float:
        call = sharded.seen(call)
        found = rates[call.is_decode]
        chosen = chosen_share(moe.num_experts, moe.num_chosen, call.num_tokens) if moe else 0.0
        total = _cost(found.always, call, chosen)
        for memory, compute in found.either:
            total += max(_cost(memory, call, chosen), _cost(compute, call, chosen))
        return max(total, found.host * call.num_sequences)

    return seconds


# Seconds of a call of nothing, for each of a call's counts, and for the share of the experts.
Factors = tuple[float, float, float, float, float, float]


def _cost(factors: Factors, call: Call, chosen: float) -> float:
    """Return the seconds of a call that chooses a share of the experts."""
    fixed, token, sequence, cached, pair, experts = factors
    num_tokens, num_sequences, num_cached, num_pairs, _ = call
    return (
        fixed
        + token * num_tokens
        + sequence * num_sequences
        + cached * num_cached
        + pair * num_pairs
        + experts * chosen
    )


@dataclass(frozen=True, slots=True)
class _Rates:
    """What all calls cost, and what they cost by memory or by arithmetic, whichever is more."""

    always: Factors
    either: tuple[tuple[Factors, Factors], ...]
    host: float


# A call of nothing, and one of each count alone.
UNITS = ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))


def _rates(sharded: ShardedModel, on: Roofline, is_decode: bool) -> _Rates:
    """Return the factors of calls of one kind."""
    calls = [Call(*counts, is_decode=is_decode) for counts in UNITS]
    each = [
        [
            *sharded.operators(call),
            *choosing(sharded.model, on.engine, call),
        ]
        for call in calls
    ]
    on = on.on_call(each[0], is_decode, sharded.tp)
    launches = on.engine.launches
    num_launches = launches.of(sharded.model) if launches else sum(o.num_launches for o in each[0])
    always = _slopes([on.overhead_s(num_launches, call.num_sequences) for call in calls])
    either = []
    for same in zip(*each, strict=True):
        is_link = same[0].resource is Resource.INTERCONNECT
        memory = _slopes([on.seconds(o) if is_link else on.memory_seconds(o) for o in same])
        compute = _slopes([0.0 if is_link else on.compute_seconds(o) for o in same])
        if same[0].name == "experts":
            memory = _of_experts(sharded, on, memory)
        if any(compute):
            either.append((memory, compute))
        else:
            always = _sum(always, memory)
    return _Rates(always, tuple(either), on.host_s(1))


def _sum(one: Factors, other: Factors) -> Factors:
    first, second, third, fourth, fifth, sixth = map(add, one, other)
    return first, second, third, fourth, fifth, sixth


def _of_experts(sharded: ShardedModel, on: Roofline, memory: Factors) -> Factors:
    """Return the factors of experts' memory, with what the chosen share takes apart.

    One token takes s(1) W + m and two s(2) W + 2 m seconds: W those of all weights, m a token's.
    """
    moe = sharded.model.moe
    assert moe is not None  # else nothing is called experts
    fixed, one, sequence, cached, pair, _ = memory
    two = next(
        o for o in sharded.operators(Call(2, 0, 0, 0, is_decode=True)) if o.name == "experts"
    )
    shares = [chosen_share(moe.num_experts, moe.num_chosen, tokens) for tokens in (1, 2)]
    weights = (2 * one - on.memory_seconds(two)) / (2 * shares[0] - shares[1])
    return fixed, one - shares[0] * weights, sequence, cached, pair, weights


def _slopes(values: Sequence[float]) -> Factors:
    """Return the value of nothing, and how much more each count alone gives."""
    fixed, token, sequence, cached, pair = values
    return fixed, token - fixed, sequence - fixed, cached - fixed, pair - fixed, 0.0


def choosing(model: ModelConfig, engine: EngineProfile, call: Call) -> Iterator[Operator]:
    """Yield what choosing the tokens costs a GPU that does it with kernels of its own."""
    if engine.choosing is not None:
        row_bytes = 4 * model.vocab_size
        moved = engine.choosing.passes * call.num_sequences * row_bytes
        yield Operator("choosing", Resource.ELEMENTWISE, moved)


def decode_step_time(
    sharded: ShardedModel, on: Roofline, batch_size: int, context: float
) -> StepTime:
    """Return the time of one step of `batch_size` sequences of `context` tokens."""
    return step_time(sharded, on, decode_call(batch_size, context, sharded.num_checked))


def prefill_s(
    sharded: ShardedModel,
    on: Roofline,
    isl: int,
    max_num_tokens: int,
    num_sequences: int = 1,
    start: int = 0,
) -> float:
    """Return the seconds of `num_sequences` prompts of `isl` tokens, in chunks.

    They come after `start` tokens whose state is there. Prompts shorter than a chunk share it; a
    longer one takes several, each over the tokens before it, and the last ones of many share calls.
    """
    chunk = max(min(isl, max_num_tokens), 1)
    num_full, rest = divmod(isl, chunk)

    def pieces_ms(begin: int, num_tokens: int) -> float:
        """Return the time of a piece of each prompt; pieces shorter than a call share it."""
        together = min(num_sequences, max(max_num_tokens // num_tokens, 1))
        calls, left = divmod(num_sequences, together)
        total = 0.0
        for count, prompts in ((calls, together), (min(left, 1), left)):
            if count:
                call = prefill_call(prompts, start + begin, num_tokens)
                total += count * step_time(sharded, on, call).total
        return total

    # Chunks of one size differ only in the attention before them, which grows evenly: the mean of
    # the first and the last stands for each.
    first_and_last = pieces_ms(0, chunk) + pieces_ms((num_full - 1) * chunk, chunk)
    total_ms = num_full * first_and_last / 2
    if rest:
        total_ms += pieces_ms(num_full * chunk, rest)
    return total_ms / 1e3


def mean_context(isl: int, osl: int) -> float:
    """Return the mean number of cached tokens over the generation of `osl` tokens."""
    return isl + math.ceil(osl / 2)
