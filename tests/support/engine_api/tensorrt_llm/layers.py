"""Source: 1.2 tensorrt_llm/layers/{linear,normalization,embedding,ssm,attention}.py."""

import numpy as np

from ._common import default_net
from .functional import (
    AttentionMaskType,
    PositionEmbeddingType,
    QuantMode,
    allgather,
    allreduce,
    mamba_conv1d,
    of,
    selective_scan,
    sequences,
)
from .module import Module, Parameter

__all__ = ["AttentionMaskType", "PositionEmbeddingType"]


class Linear(Module):
    def __init__(
        self,
        in_features,
        out_features,
        bias=True,
        dtype=None,
        tp_group=None,
        tp_size=1,
        gather_output=True,
        share_weight=None,
        strict_dtype=False,
        pad_lda=0,
        pad_ldc=0,
        prefer_managed_weight=True,
        is_qkv=False,
    ):
        assert not bias
        self.in_features, self.out_features = in_features, out_features // tp_size
        self.bias, self.dtype, self.tp_group, self.tp_size = None, dtype, tp_group, tp_size
        self.gather_output, self.pad_ldc, self.is_qkv = gather_output, pad_ldc, is_qkv
        self.prefer_managed_weight = prefer_managed_weight
        self.weight = Parameter((self.out_features, in_features), dtype)

    def forward(self, x, lora_runtime_params=None, lora_hidden_state=None):
        y = of(self.multiply(x.value))
        if self.pad_ldc:
            y = of(np.pad(y.value, ((0, 0), (0, self.pad_ldc // self.tp_size))))
        if self.gather_output and self.tp_size > 1:
            y = allgather(y, self.tp_group, gather_dim=-1)
        return y

    def multiply(self, x):
        return x @ self.weight.value.value.T


ColumnLinear = Linear


class RowLinear(Module):
    def __init__(
        self,
        in_features,
        out_features,
        bias=True,
        dtype=None,
        tp_group=None,
        tp_size=1,
        strict_dtype=False,
        pad_lda=0,
        prefer_managed_weight=True,
        is_expert=False,
    ):
        assert not bias
        self.in_features, self.out_features = in_features // tp_size, out_features
        self.bias, self.dtype, self.tp_group, self.tp_size = None, dtype, tp_group, tp_size
        self.prefer_managed_weight, self.is_expert = prefer_managed_weight, is_expert
        self.weight = Parameter((out_features, self.in_features), dtype)

    def forward(self, x, lora_runtime_params=None, lora_hidden_state=None, all_reduce_params=None):
        y = of(self.multiply(x.value))
        return allreduce(y, self.tp_group) if self.tp_size > 1 else y

    def multiply(self, x):
        return x @ self.weight.value.value.T


class Embedding(Module):
    def __init__(
        self,
        num_embeddings,
        embedding_dim,
        dtype=None,
        tp_size=1,
        tp_group=None,
        sharding_dim=0,
        tp_rank=None,
    ):
        self.weight = Parameter((num_embeddings, embedding_dim), dtype)

    def forward(self, x):
        return of(self.weight.value.value[x.value])


class RmsNorm(Module):
    def __init__(
        self, normalized_shape, num_groups=1, eps=1e-06, elementwise_affine=True, dtype=None
    ):
        self.num_groups, self.eps = num_groups, eps
        self.weight = Parameter((normalized_shape,), dtype)

    def forward(self, x, normalized_shape=None):
        groups = x.value.reshape(len(x.value), self.num_groups, -1)
        scale = 1 / np.sqrt((groups**2).mean(-1, keepdims=True) + self.eps)
        return of((groups * scale).reshape(x.value.shape) * self.weight.value.value)


class MambaConv1d(Module):
    def __init__(self, d_inner, d_conv=4, pre_stride=0, post_stride=0, dtype=None, apply_silu=True):
        self.d_inner, self.d_conv, self.dtype = d_inner, d_conv, dtype
        self.pre_stride, self.post_stride, self.apply_silu = pre_stride, post_stride, apply_silu
        self.weight = Parameter((d_inner, 1, d_conv, 1), dtype)
        self.bias = Parameter((d_inner,), dtype)

    def forward(
        self,
        x,
        conv_state,
        host_request_types,
        last_token_ids,
        host_context_lengths=None,
        slot_mapping=None,
        conv_indices=None,
    ):
        weight = self.weight.value.value.reshape(self.d_inner, 1, self.d_conv).transpose(1, 2, 0)
        return mamba_conv1d(
            x,
            conv_state,
            of(weight),
            self.bias.value,
            host_request_types,
            last_token_ids,
            self.d_inner,
            self.d_conv,
            self.dtype,
            self.pre_stride,
            self.post_stride,
            host_context_lengths,
            slot_mapping,
            self.apply_silu,
        )


class Mamba2(Module):
    def __init__(
        self,
        d_model,
        d_inner,
        d_state=16,
        d_conv=4,
        headdim=64,
        ngroups=1,
        chunk_size=256,
        bias=False,
        rmsnorm=True,
        dtype=None,
        tp_group=None,
        tp_size=1,
    ):
        assert d_inner % tp_size == ngroups % tp_size == d_inner % headdim == 0
        nheads = d_inner // headdim
        assert nheads % tp_size == 0
        self.d_inner, self.d_state, self.dtype = d_inner // tp_size, d_state, dtype
        self.ngroups, self.nheads = ngroups // tp_size, nheads // tp_size
        self.chunk_size = chunk_size
        pad = -self.nheads % 8
        for name in ("A", "D", "dt_bias"):
            setattr(self, name, Parameter((self.nheads,), "float32"))
        shared = {"bias": bias, "dtype": dtype, "tp_group": tp_group, "tp_size": tp_size}
        self.in_proj = ColumnLinear(
            d_model,
            2 * d_inner + 2 * ngroups * d_state + nheads,
            gather_output=False,
            pad_ldc=pad * tp_size,
            **shared,
        )
        self.conv1d = MambaConv1d(
            (d_inner + 2 * ngroups * d_state) // tp_size,
            d_conv,
            pre_stride=self.d_inner,
            post_stride=self.nheads + pad,
            dtype=dtype,
        )
        assert rmsnorm
        self.norm = RmsNorm(self.d_inner, num_groups=self.ngroups, eps=1e-5, dtype=dtype)
        self.out_proj = RowLinear(d_inner, d_model, **shared)

    def forward(
        self,
        hidden_states,
        conv_state,
        ssm_state,
        host_request_types,
        last_token_ids,
        host_context_lengths=None,
        slot_mapping=None,
        conv_indices=None,
    ):
        zxbcdt = self.in_proj(hidden_states)
        xbc, conv_state = self.conv1d(
            zxbcdt,
            conv_state,
            host_request_types,
            last_token_ids,
            host_context_lengths,
            slot_mapping,
            conv_indices,
        )
        y, ssm_state = selective_scan(
            xbc,
            ssm_state,
            zxbcdt,
            self.dt_bias.value,
            self.A.value,
            xbc,
            self.D.value,
            host_request_types,
            last_token_ids,
            self.d_inner,
            self.d_state,
            dt_rank=0,
            delta_softplus=True,
            dtype=self.dtype,
            z=zxbcdt,
            host_context_lengths=host_context_lengths,
            slot_mapping=slot_mapping,
            nheads=self.nheads,
            ngroups=self.ngroups,
            chunk_size=self.chunk_size,
            mamba_version="Mamba2",
        )
        return self.out_proj(self.norm(y)), conv_state, ssm_state


class AttentionParams:
    def __init__(
        self,
        sequence_length=None,
        context_lengths=None,
        host_context_lengths=None,
        max_context_length=None,
        host_request_types=None,
        encoder_input_lengths=None,
        encoder_max_input_length=None,
        host_runtime_perf_knobs=None,
        host_context_progress=None,
    ):
        given = {name: value for name, value in locals().items() if name != "self"}
        self.__dict__.update(given)


class KeyValueCacheParams:
    def __init__(
        self,
        past_key_value=None,
        host_past_key_value_lengths=None,
        host_max_attention_window_sizes=None,
        host_sink_token_length=None,
        kv_cache_block_offsets=None,
        host_kv_cache_block_offsets=None,
        host_kv_cache_pool_pointers=None,
        host_kv_cache_pool_mapping=None,
        cache_indirection=None,
        past_key_value_length=None,
        cross_kv_cache_block_offsets=None,
        host_cross_kv_cache_block_offsets=None,
        host_cross_kv_cache_pool_pointers=None,
        host_cross_kv_cache_pool_mapping=None,
    ):
        given = {name: value for name, value in locals().items() if name != "self"}
        self.__dict__.update(given)


CACHE_INPUTS = (
    "host_past_key_value_lengths",
    "host_max_attention_window_sizes",
    "host_sink_token_length",
    "kv_cache_block_offsets",
    "host_kv_cache_block_offsets",
    "host_kv_cache_pool_pointers",
    "host_kv_cache_pool_mapping",
    "cache_indirection",
)
BATCH_INPUTS = (
    "sequence_length",
    "context_lengths",
    "host_context_lengths",
    "host_request_types",
    "host_runtime_perf_knobs",
    "host_context_progress",
)


class Attention(Module):
    def __init__(
        self,
        *,
        local_layer_idx,
        hidden_size,
        num_attention_heads,
        num_kv_heads=None,
        max_position_embeddings=1024,
        num_layers=1,
        apply_query_key_layer_scaling=False,
        attention_head_size=None,
        qk_layernorm=False,
        attention_mask_type=AttentionMaskType.padding,
        bias=True,
        dtype=None,
        position_embedding_type=PositionEmbeddingType.learned_absolute,
        rotary_embedding_base=10000.0,
        rotary_embedding_scaling=None,
        rotary_embedding_percentage=1.0,
        tp_group=None,
        tp_size=1,
        tp_rank=0,
        quant_mode=QuantMode(0),  # noqa: B008 - as in 1.2
        q_scaling=1.0,
        dense_bias=None,
    ):
        assert num_attention_heads % tp_size == 0
        assert attention_mask_type is AttentionMaskType.causal
        assert position_embedding_type is PositionEmbeddingType.learned_absolute  # none inside
        self.local_layer_idx, self.head_size = local_layer_idx, attention_head_size
        self.num_heads = num_attention_heads // tp_size
        self.num_kv_heads = (num_kv_heads + tp_size - 1) // tp_size
        self.quant_mode = quant_mode
        self.kv_cache_scaling_factor = None
        shared = {"dtype": dtype, "tp_group": tp_group, "tp_size": tp_size}
        width = tp_size * (self.num_heads + 2 * self.num_kv_heads) * attention_head_size
        self.qkv = ColumnLinear(
            hidden_size, width, bias=bias, gather_output=False, is_qkv=True, **shared
        )
        inner = tp_size * self.num_heads * attention_head_size
        dense_bias = bias if dense_bias is None else dense_bias
        self.dense = RowLinear(inner, hidden_size, bias=dense_bias, **shared)

    @staticmethod
    def create_attention_const_params(model_cls, config):
        assert config.head_size is not None
        assert config.max_position_embeddings is not None
        assert not config.position_embedding_type.is_rope()

    @staticmethod
    def fill_attention_params(model_cls, attention_params):
        assert not model_cls.position_embedding_type.is_rope()
        return attention_params

    def forward(
        self,
        hidden_states,
        attention_mask=None,
        attention_packed_mask=None,
        use_cache=False,
        spec_decoding_params=None,
        mrope_params=None,
        kv_cache_params=None,
        attention_params=None,
    ):
        default_net().plugins_used.append("GPTAttention")
        assert use_cache
        for owner, names in ((kv_cache_params, CACHE_INPUTS), (attention_params, BATCH_INPUTS)):
            missing = [name for name in names if getattr(owner, name) is None]
            assert not missing, f"gpt_attention needs {missing}"
        assert isinstance(attention_params.max_context_length, int)
        qkv = self.qkv(hidden_states).value
        sizes = [self.num_heads, self.num_kv_heads, self.num_kv_heads]
        heads = qkv.reshape(len(qkv), sum(sizes), self.head_size)
        q, k, v = np.split(heads, np.cumsum(sizes)[:-1], axis=1)
        out = np.empty_like(q)
        batch = attention_params
        ends = of(
            np.cumsum(
                np.where(batch.host_request_types.value == 0, batch.host_context_lengths.value, 1)
            )
        )
        for row, begins, rows in sequences(
            batch.host_request_types, ends, batch.host_context_lengths, None
        ):
            pages = kv_cache_params.kv_cache_block_offsets.value[0, row, 0, 0]
            key = (self.local_layer_idx, int(pages))
            new = np.stack([k[rows], v[rows]])
            caches = default_net().caches
            caches[key] = new if begins else np.concatenate([caches[key], new], 1)
            past = int(kv_cache_params.host_past_key_value_lengths.value[row])
            assert past == (0 if begins else caches[key].shape[1] - 1)
            out[rows] = _attend(q[rows], *caches[key])
        return self.dense(of(out.reshape(len(qkv), -1))), None


def _attend(q, k, v):
    shared = q.shape[1] // k.shape[1]
    scores = np.einsum("qhd,khd->hqk", q, k.repeat(shared, 1)) / np.sqrt(q.shape[-1])
    num, total = len(q), len(k)
    scores = scores + np.triu(np.full((num, total), -np.inf), total - num + 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", weights, v.repeat(shared, 1))
