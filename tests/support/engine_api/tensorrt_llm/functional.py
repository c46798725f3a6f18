"""Source: 1.2 tensorrt_llm/functional.py: Tensor, activations, collectives, the Mamba plugins."""

from enum import IntEnum, IntFlag, auto
from typing import Any

import numpy as np

from ._common import default_net


class PositionEmbeddingType(IntEnum):
    learned_absolute = 0
    rope_gptj = 1
    rope_gpt_neox = 2

    def is_rope(self) -> bool:
        return self in (self.rope_gptj, self.rope_gpt_neox)

    @staticmethod
    def from_string(name: str) -> "PositionEmbeddingType":
        return PositionEmbeddingType[name]


class AttentionMaskType(IntEnum):
    padding = 0
    causal = 1


class QuantMode(IntFlag):
    NONE = 0
    FP8_KV_CACHE = auto()


class Tensor:
    """A network tensor, with its value; a named one is an input, which must be fed."""

    def __init__(
        self, name=None, dtype=None, shape=None, dim_range=None, is_network_input=True, value=None
    ):
        self.name, self.dtype, self.dim_range = name, dtype, dim_range
        self.value = value
        if name is not None and is_network_input:
            network = default_net()
            assert name not in network.inputs, f"input {name} is made twice"
            network.inputs[name] = self
            if name in network.feeds:
                self.value = network.feeds[name]
                _check_feed(self, shape)

    @property
    def shape(self):
        return self.value.shape

    def ndim(self):
        return self.value.ndim

    def mark_output(self, name: str, dtype: Any = None) -> None:
        default_net().outputs[name] = self.value

    def __add__(self, other: "Tensor") -> "Tensor":
        return of(self.value + other.value)

    def __mul__(self, other: "Tensor") -> "Tensor":
        return of(self.value * other.value)


def _check_feed(tensor: Tensor, shape: list[int]) -> None:
    value, ranges = tensor.value, list(tensor.dim_range.values())
    assert str(value.dtype) == tensor.dtype or (
        value.dtype == np.float32 and tensor.dtype in ("bfloat16", "float16")
    ), f"{tensor.name} is {value.dtype}, declared {tensor.dtype}"
    assert len(shape) == value.ndim == len(ranges), f"{tensor.name} {shape} {value.shape}"
    for size, declared, profiles in zip(value.shape, shape, ranges, strict=True):
        assert declared in (-1, size), f"{tensor.name} is {value.shape}, declared {shape}"
        for profile in profiles:
            low, high = (profile, profile) if isinstance(profile, int) else profile[::2]
            assert low <= size <= high, f"{tensor.name}: {size} is not in {profile}"


def of(value: np.ndarray) -> Tensor:
    return Tensor(value=value)


def relu(input: Tensor) -> Tensor:
    return of(np.maximum(input.value, 0))


def allreduce(tensor: Tensor, group: list[int]) -> Tensor:
    network = default_net()
    assert network.group.workspace_set, "no workspace for the all-reduce"
    return of(sum(network.group.exchange(network.rank, tensor.value)))


def allgather(tensor: Tensor, group: list[int], gather_dim: int = 0) -> Tensor:
    network = default_net()
    return of(np.concatenate(network.group.exchange(network.rank, tensor.value), gather_dim))


def gather_last_token_logits(
    hidden_states: Tensor, last_token_ids: Tensor, remove_input_padding: bool
) -> Tensor:
    assert remove_input_padding
    return of(hidden_states.value[last_token_ids.value - 1])


def sequences(host_request_types, last_token_ids, host_context_lengths, slot_mapping):
    """Yield (slot, whether it begins, rows) of each sequence in a packed batch."""
    start = 0
    for row, (kind, end) in enumerate(
        zip(host_request_types.value, last_token_ids.value, strict=True)
    ):
        slot = int(slot_mapping.value[row]) if slot_mapping is not None else row
        expected = int(host_context_lengths.value[row]) if kind == 0 else 1
        assert end - start == expected
        yield slot, kind == 0, slice(start, int(end))
        start = int(end)


def _state(state_or_ptr: Tensor):
    """Return the state's rows: the tensor itself, or what its pointer points to."""
    if default_net().plugin_config.paged_state:
        assert state_or_ptr.value.dtype == np.int64
        return default_net().memory[int(state_or_ptr.value[0])]
    return state_or_ptr.value.copy()


def mamba_conv1d(
    input: Tensor,
    conv_state_or_ptr: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    host_request_types: Tensor,
    last_token_ids: Tensor,
    dim: int,
    dconv: int,
    dtype: str,
    pre_stride: int = 0,
    post_stride: int = 0,
    host_context_lengths: Tensor | None = None,
    slot_mapping: Tensor | None = None,
    apply_silu: bool = True,
):
    """Plugin MambaConv1d: the middle `dim` columns of the input; state [slots, dconv - 1, dim]."""
    default_net().plugins_used.append("MambaConv1d")
    assert input.shape[-1] == pre_stride + dim + post_stride
    assert conv_weight.shape == (1, dconv, dim)
    state = _state(conv_state_or_ptr)
    assert state.shape[1:] == (dconv - 1, dim)
    x = input.value[:, pre_stride : pre_stride + dim]
    out = np.empty_like(x)
    order = (host_request_types, last_token_ids, host_context_lengths, slot_mapping)
    for slot, begins, rows in sequences(*order):
        past = np.zeros_like(state[slot]) if begins else state[slot]
        window = np.concatenate([past, x[rows]])
        for t in range(rows.stop - rows.start):
            taps = window[t : t + dconv] * conv_weight.value[0]
            out[rows.start + t] = taps.sum(0) + conv_bias.value
        state[slot] = window[len(window) - (dconv - 1) :]
    out = silu(out) if apply_silu else out
    return of(out), of(state)


def selective_scan(
    input: Tensor,
    state_or_ptr: Tensor,
    delta: Tensor,
    delta_bias: Tensor,
    A: Tensor,  # noqa: N803 - 1.2's names
    BC: Tensor,  # noqa: N803
    D: Tensor,  # noqa: N803
    host_request_types: Tensor,
    last_token_ids: Tensor,
    dim: int,
    dstate: int,
    dt_rank: int,
    delta_softplus: bool,
    dtype: str,
    z: Tensor | None = None,
    host_context_lengths: Tensor | None = None,
    slot_mapping: Tensor | None = None,
    nheads: int = 1,
    ngroups: int = 1,
    chunk_size: int = 256,
    mamba_version: str = "Mamba1",
):
    """Plugin SelectiveScan, Mamba-2: delta, z are in_proj's whole rows; state [slots, H, N, P]."""
    default_net().plugins_used.append("SelectiveScan")
    assert mamba_version == "Mamba2"
    assert delta_softplus
    assert chunk_size in (128, 256)
    assert dstate >= 64
    assert dstate % 16 == 0
    head_dim, groups = dim // nheads, ngroups * dstate
    x = input.value[:, :dim].reshape(-1, nheads, head_dim)
    shared = nheads // ngroups
    b, c = (
        BC.value[:, dim + i * groups :][:, :groups].reshape(-1, ngroups, dstate).repeat(shared, 1)
        for i in (0, 1)
    )
    dt_start = 2 * dim + 2 * groups
    step = np.logaddexp(0, delta.value[:, dt_start : dt_start + nheads] + delta_bias.value)
    gate = silu(z.value[:, :dim])
    for value in (A, D, delta_bias):
        assert value.value.dtype == np.float32
    state = _state(state_or_ptr)
    assert state.shape[1:] == (nheads, dstate, head_dim)
    out = np.empty_like(x)
    order = (host_request_types, last_token_ids, host_context_lengths, slot_mapping)
    for slot, begins, rows in sequences(*order):
        held = np.zeros_like(state[slot]) if begins else state[slot].copy()
        for t in range(rows.start, rows.stop):
            held *= np.exp(step[t] * A.value)[:, None, None]
            held += b[t][:, :, None] * (step[t][:, None] * x[t])[:, None, :]
            out[t] = (held * c[t][:, :, None]).sum(1) + D.value[:, None] * x[t]
        state[slot] = held
    return of(out.reshape(-1, dim) * gate), of(state)


def silu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.tanh(0.5 * x))
