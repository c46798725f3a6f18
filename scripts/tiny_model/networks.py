"""Lean training forwards of Nemotron-H and Qwen3 under the hub's tensor names."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CHUNK = 64  # tokens of one quadratic form in the state-space scan

Config = dict[str, Any]


class RmsNorm(nn.Module):
    """RMS normalization, per group where `num_groups` is above one."""

    def __init__(self, size: int, eps: float, num_groups: int = 1) -> None:
        """Starts with unit weights."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps, self.num_groups = eps, num_groups

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x` normalized over its last axis, times the weight."""
        grouped = unflatten(x, -1, self.num_groups, -1)
        normal = functional.rms_norm(grouped, grouped.shape[-1:], eps=self.eps)
        return self.weight * normal.flatten(-2)


def unflatten(x: Tensor, axis: int, *sizes: int) -> Tensor:
    """Returns `x` with one axis laid out as several; one size may be -1."""
    return torch.unflatten(x, axis, sizes)


def linear(num_in: int, num_out: int) -> nn.Linear:
    """Returns a linear map without bias, initialized to keep the scale of its input."""
    layer = nn.Linear(num_in, num_out, bias=False)
    nn.init.normal_(layer.weight, std=0.5 / math.sqrt(num_in))
    return layer


def scan(x: Tensor, log_decay: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Returns the state-space output of a sequence that starts from the zero state.

    The quadratic form inside a chunk plus the state carried between chunks.
    Source: Dao and Gu, "Transformers are SSMs" (2024), section 6.

    Args:
        x: Inputs times their step, [batch, heads, tokens, head_dim].
        log_decay: Logarithm of each step's decay, [batch, heads, tokens].
        b: Input maps, [batch, groups, tokens, state].
        c: Output maps, [batch, groups, tokens, state].
    """
    per_group = x.shape[1] // b.shape[1]
    x, b, c = (unflatten(t, 2, -1, CHUNK) for t in (x, b, c))
    total = unflatten(log_decay, 2, -1, CHUNK).cumsum(-1)
    mask = torch.ones(CHUNK, CHUNK, dtype=torch.bool).tril()
    inside = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(~mask, -torch.inf).exp()
    scores = (c @ b.transpose(-1, -2)).repeat_interleave(per_group, 1)
    y = (scores * inside) @ x
    b, c = (t.repeat_interleave(per_group, 1) for t in (b, c))
    to_end = (total[..., -1:] - total).exp().unsqueeze(-1)
    states = b.transpose(-1, -2) @ (x * to_end)  # [batch, heads, chunks, state, head_dim]
    chunk_decay = total[..., -1].exp()
    state = torch.zeros_like(states[:, :, 0])
    carried = []
    for i in range(states.shape[2]):
        carried.append(state)
        state = state * chunk_decay[:, :, i, None, None] + states[:, :, i]
    y = y + (c @ torch.stack(carried, 2)) * total.exp().unsqueeze(-1)
    return torch.flatten(y, 2, 3)


class MambaMixer(nn.Module):
    """Mamba-2 mixer; the step is not clamped, as in the real model."""

    def __init__(self, config: Config) -> None:
        """Starts steps between 0.001 and 0.1 and decays of 1, 2, ... a unit of time."""
        super().__init__()
        self.heads, self.head_dim = config["mamba_num_heads"], config["mamba_head_dim"]
        self.groups, self.state = config["n_groups"], config["ssm_state_size"]
        self.inner = self.heads * self.head_dim
        channels = self.inner + 2 * self.groups * self.state
        self.in_proj = linear(config["hidden_size"], self.inner + channels + self.heads)
        self.conv1d = nn.Conv1d(channels, channels, config["conv_kernel"], groups=channels)
        step = torch.exp(torch.empty(self.heads).uniform_(math.log(0.001), math.log(0.1)))
        self.dt_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, self.heads + 1)))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = RmsNorm(self.inner, config["layer_norm_epsilon"], self.groups)
        self.out_proj = linear(self.inner, config["hidden_size"])

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the mixed sequence, [batch, tokens, hidden]."""
        tokens = hidden.shape[1]
        gate, xbc, step = torch.split(
            self.in_proj(hidden), [self.inner, self.conv1d.out_channels, self.heads], -1
        )
        padded = functional.pad(xbc, (0, 0, self.conv1d.kernel_size[0] - 1, 0))
        taps = self.conv1d.weight.squeeze(1).T
        shifted = [padded[:, k : k + tokens] * tap for k, tap in enumerate(taps)]
        mixed = sum(shifted[1:], shifted[0]) + self.conv1d.bias
        sizes = [self.inner, self.groups * self.state, self.groups * self.state]
        x, b, c = torch.split(functional.silu(mixed), sizes, -1)
        step = functional.softplus(step + self.dt_bias).transpose(1, 2)
        x = unflatten(x, -1, self.heads, -1).transpose(1, 2)
        b, c = (unflatten(t, -1, self.groups, -1).transpose(1, 2) for t in (b, c))
        y = scan(x * step.unsqueeze(-1), -step * self.A_log.exp()[:, None], b, c)
        y = (y + x * self.D[:, None, None]).transpose(1, 2).flatten(2)
        output: Tensor = self.out_proj(self.norm(y * functional.silu(gate)))
        return output


class Attention(nn.Module):
    """Causal grouped-query attention; rotary embedding and q/k norm are Qwen3's."""

    def __init__(self, config: Config, rotary: bool) -> None:
        """Makes the projections, and the q/k norms where the model is rotary."""
        super().__init__()
        hidden, self.head_dim = config["hidden_size"], config["head_dim"]
        num_q, num_kv = config["num_attention_heads"], config["num_key_value_heads"]
        self.q_proj = linear(hidden, num_q * self.head_dim)
        self.k_proj = linear(hidden, num_kv * self.head_dim)
        self.v_proj = linear(hidden, num_kv * self.head_dim)
        self.o_proj = linear(num_q * self.head_dim, hidden)
        self.theta = config["rope_theta"] if rotary else None
        if rotary:
            self.q_norm = RmsNorm(self.head_dim, config["rms_norm_eps"])
            self.k_norm = RmsNorm(self.head_dim, config["rms_norm_eps"])

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the attended sequence, [batch, tokens, hidden]."""
        q, k, v = (
            unflatten(project(hidden), -1, -1, self.head_dim)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.theta is not None:
            q, k = self._rotate(self.q_norm(q)), self._rotate(self.k_norm(k))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        output: Tensor = self.o_proj(y.transpose(1, 2).flatten(2))
        return output

    def _rotate(self, x: Tensor) -> Tensor:
        half = self.head_dim // 2
        frequency = self.theta ** (-torch.arange(half) / half)
        angle = torch.arange(x.shape[1])[:, None] * frequency
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        first, second = x.chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Relu2Mlp(nn.Module):
    """Nemotron-H's MLP: squared ReLU, no gate."""

    def __init__(self, config: Config) -> None:
        """Makes the two projections."""
        super().__init__()
        self.up_proj = linear(config["hidden_size"], config["intermediate_size"])
        self.down_proj = linear(config["intermediate_size"], config["hidden_size"])

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the mapped sequence, [batch, tokens, hidden]."""
        output: Tensor = self.down_proj(functional.relu(self.up_proj(hidden)).square())
        return output


class SwigluMlp(nn.Module):
    """Qwen3's MLP: gated SiLU."""

    def __init__(self, config: Config) -> None:
        """Makes the three projections."""
        super().__init__()
        self.gate_proj = linear(config["hidden_size"], config["intermediate_size"])
        self.up_proj = linear(config["hidden_size"], config["intermediate_size"])
        self.down_proj = linear(config["intermediate_size"], config["hidden_size"])

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the mapped sequence, [batch, tokens, hidden]."""
        output: Tensor = self.down_proj(
            functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden)
        )
        return output


class HybridLayer(nn.Module):
    """One residual layer of the kind that its letter in the pattern names."""

    def __init__(self, config: Config, kind: str) -> None:
        """Makes the mixer of `kind`: M Mamba-2, * attention, - MLP."""
        super().__init__()
        self.norm = RmsNorm(config["hidden_size"], config["layer_norm_epsilon"])
        self.mixer: nn.Module
        if kind == "M":
            self.mixer = MambaMixer(config)
        else:
            self.mixer = Attention(config, rotary=False) if kind == "*" else Relu2Mlp(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the residual stream after this layer."""
        output: Tensor = hidden + self.mixer(self.norm(hidden))
        return output


class DenseLayer(nn.Module):
    """One attention + MLP layer of Qwen3."""

    def __init__(self, config: Config) -> None:
        """Makes both halves and their norms."""
        super().__init__()
        self.input_layernorm = RmsNorm(config["hidden_size"], config["rms_norm_eps"])
        self.self_attn = Attention(config, rotary=True)
        self.post_attention_layernorm = RmsNorm(config["hidden_size"], config["rms_norm_eps"])
        self.mlp = SwigluMlp(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """Returns the residual stream after this layer."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden))
        output: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return output


class LanguageModel(nn.Module):
    """Either model: logits of every position, [batch, tokens, vocab]."""

    def __init__(self, config: Config) -> None:
        """Makes the model that `config["model_type"]` names."""
        super().__init__()
        hidden, vocab_size = config["hidden_size"], config["vocab_size"]
        embedding = nn.Embedding(vocab_size, hidden)
        nn.init.normal_(embedding.weight, std=0.5)
        layers: list[nn.Module]
        if config["model_type"] == "nemotron_h":
            layers = [HybridLayer(config, kind) for kind in config["hybrid_override_pattern"]]
            trunk, names = "backbone", ("embeddings", "layers", "norm_f")
        else:
            layers = [DenseLayer(config) for _ in range(config["num_hidden_layers"])]
            trunk, names = "model", ("embed_tokens", "layers", "norm")
        norm = RmsNorm(hidden, config["rms_norm_eps"])
        parts = (embedding, nn.Sequential(*layers), norm)
        self.add_module(trunk, nn.ModuleDict(dict(zip(names, parts, strict=True))))
        self.lm_head = linear(hidden, vocab_size)

    def forward(self, ids: Tensor) -> Tensor:
        """Returns the logits that follow each of `ids`, [batch, tokens]."""
        hidden: Tensor = ids
        for part in next(self.children()).children():
            hidden = part(hidden)
        logits: Tensor = self.lm_head(hidden)
        return logits
