# mypy: ignore-errors
"""Nemotron-H for TensorRT-LLM 1.2: `trtllm-build --model_cls_file` loads this file.

It is one file because that option takes one; it needs nothing but tensorrt_llm 1.2.x and its
TensorRT 10, and is copied into the checkpoint's folder. A block is x + mixer(norm(x)), where the
mixer is Mamba-2 (plugins MambaConv1d and SelectiveScan), attention without position embedding
(plugin GPTAttention), or an MLP with squared ReLU. Not executed: no GPU; its calls are checked
against 1.2's signatures.
"""

from collections import OrderedDict

import tensorrt as trt
from tensorrt_llm._common import default_net
from tensorrt_llm._utils import str_dtype_to_trt
from tensorrt_llm.functional import Tensor, gather_last_token_logits, relu
from tensorrt_llm.layers import (
    Attention,
    AttentionMaskType,
    AttentionParams,
    ColumnLinear,
    Embedding,
    KeyValueCacheParams,
    Mamba2,
    PositionEmbeddingType,
    RmsNorm,
    RowLinear,
)
from tensorrt_llm.models.generation_mixin import GenerationMixin
from tensorrt_llm.models.modeling_utils import PretrainedModel, get_kv_cache_type_from_legacy
from tensorrt_llm.module import Module, ModuleList
from tensorrt_llm.plugin import current_all_reduce_helper


class SquaredReluMLP(Module):
    """proj(relu(fc(x))^2)."""

    def __init__(self, config):
        """Split the inner width over the ranks."""
        super().__init__()
        shared = {
            "bias": False,
            "dtype": config.dtype,
            "tp_group": config.mapping.tp_group,
            "tp_size": config.mapping.tp_size,
        }
        width, inner = config.hidden_size, config.intermediate_size
        self.fc = ColumnLinear(width, inner, gather_output=False, **shared)
        self.proj = RowLinear(inner, width, **shared)

    def forward(self, hidden_states):
        """Return the MLP's output, summed over the ranks."""
        inner = relu(self.fc(hidden_states))
        return self.proj(inner * inner)


class NemotronHBlock(Module):
    """One residual block; `attention_index` counts the attention blocks before it."""

    def __init__(self, config, kind, attention_index):
        """Make the mixer that the block's kind asks for."""
        super().__init__()
        self.kind = kind
        mapping = config.mapping
        self.input_layernorm = RmsNorm(
            normalized_shape=config.hidden_size, eps=config.norm_epsilon, dtype=config.dtype
        )
        if kind == "recurrent":
            self.ssm = Mamba2(
                config.hidden_size,
                config.rnn_hidden_size,
                d_state=config.state_size,
                d_conv=config.conv_kernel,
                headdim=config.rnn_head_size,
                ngroups=config.ngroups,
                chunk_size=config.chunk_size,
                bias=False,
                rmsnorm=True,
                dtype=config.dtype,
                tp_group=mapping.tp_group,
                tp_size=mapping.tp_size,
            )
        elif kind == "attention":
            self.attention = Attention(
                local_layer_idx=attention_index,
                hidden_size=config.hidden_size,
                attention_head_size=config.head_size,
                num_attention_heads=config.num_attention_heads,
                num_kv_heads=config.num_key_value_heads,
                max_position_embeddings=config.max_position_embeddings,
                dtype=config.dtype,
                attention_mask_type=AttentionMaskType.causal,
                position_embedding_type=PositionEmbeddingType.learned_absolute,
                bias=False,
                dense_bias=False,
                tp_group=mapping.tp_group,
                tp_size=mapping.tp_size,
                tp_rank=mapping.tp_rank,
                quant_mode=config.quant_mode,
            )
        elif kind == "linear":
            self.mlp = SquaredReluMLP(config)
        else:
            raise ValueError(f"layer_types has {kind!r}; it may have recurrent, attention, linear")

    def forward(self, hidden_states, kv_cache_params, attention_params, recurrent, use_cache=True):
        """Return (hidden states, present KV, present convolution state, present SSM state).

        `recurrent` holds the keyword arguments of Mamba2: both states and what says whose they are.
        """
        normed = self.input_layernorm(hidden_states)
        present_kv = present_conv = present_ssm = None
        if self.kind == "recurrent":
            mixed, present_conv, present_ssm = self.ssm(normed, **recurrent)
        elif self.kind == "attention":
            mixed = self.attention(
                normed,
                use_cache=use_cache,
                kv_cache_params=kv_cache_params,
                attention_params=attention_params,
            )
            if use_cache:
                mixed, present_kv = mixed
        else:
            mixed = self.mlp(normed)
        return hidden_states + mixed, present_kv, present_conv, present_ssm


class NemotronHModel(Module):
    """Embedding, blocks, and the last norm."""

    def __init__(self, config):
        """Make the blocks in the order of config.layer_types."""
        super().__init__()
        self.vocab_embedding = Embedding(config.vocab_size, config.hidden_size, dtype=config.dtype)
        kinds = config.layer_types
        self.layers = ModuleList(
            [
                NemotronHBlock(config, kind, kinds[:index].count("attention"))
                for index, kind in enumerate(kinds)
            ]
        )
        self.ln_f = RmsNorm(
            normalized_shape=config.hidden_size, eps=config.norm_epsilon, dtype=config.dtype
        )

    def forward(self, input_ids, use_cache, kv_cache_params, attention_params, states, shared):
        """Return (hidden states, present KVs, present convolution states, present SSM states)."""
        hidden_states = self.vocab_embedding(input_ids)
        past = list(kv_cache_params.past_key_value or ())
        past += [None] * (len(states) - len(past))
        presents = []
        for layer, past_kv, (conv_state, ssm_state) in zip(self.layers, past, states, strict=True):
            hidden_states, *present = layer(
                hidden_states,
                KeyValueCacheParams(
                    past_key_value=[past_kv],
                    host_past_key_value_lengths=kv_cache_params.host_past_key_value_lengths,
                    host_max_attention_window_sizes=(
                        kv_cache_params.host_max_attention_window_sizes
                    ),
                    host_sink_token_length=kv_cache_params.host_sink_token_length,
                    kv_cache_block_offsets=kv_cache_params.kv_cache_block_offsets,
                    host_kv_cache_block_offsets=kv_cache_params.host_kv_cache_block_offsets,
                    host_kv_cache_pool_pointers=kv_cache_params.host_kv_cache_pool_pointers,
                    host_kv_cache_pool_mapping=kv_cache_params.host_kv_cache_pool_mapping,
                    cache_indirection=kv_cache_params.cache_indirection,
                ),
                attention_params,
                {"conv_state": conv_state, "ssm_state": ssm_state, **shared},
                use_cache,
            )
            presents.append(present)
        return self.ln_f(hidden_states), presents


class NemotronHForCausalLM(PretrainedModel):
    """The model that `trtllm-build --model_cls_name NemotronHForCausalLM` builds."""

    def __init__(self, config):
        """Make the network's modules; the base class quantizes them afterwards."""
        super().__init__(config)
        self.config = config
        self.dtype = str_dtype_to_trt(config.dtype)
        self._logits_dtype = str_dtype_to_trt(config.logits_dtype)
        self.layer_types = list(config.layer_types)
        self.gather_context_logits = False
        Attention.create_attention_const_params(self, config)
        self.position_embedding_type = config.position_embedding_type
        self.transformer = NemotronHModel(config)
        self.lm_head = ColumnLinear(
            config.hidden_size,
            config.vocab_size,
            bias=False,
            dtype=config.dtype,
            tp_group=config.mapping.tp_group,
            tp_size=config.mapping.tp_size,
            gather_output=True,
        )

    def forward(
        self,
        input_ids,
        position_ids=None,
        use_cache=False,
        attention_mask=None,
        kv_cache_params=None,
        attention_params=None,
        conv_states=None,
        rnn_states=None,
        host_request_types=None,
        last_token_ids=None,
        last_token_ids_for_logits=None,
        host_context_lengths=None,
        slot_mapping=None,
    ):
        """Mark logits, and what states are not paged, as outputs; return them."""
        attention_params = Attention.fill_attention_params(self, attention_params)
        shared = {
            "host_request_types": host_request_types,
            "last_token_ids": last_token_ids,
            "host_context_lengths": host_context_lengths,
            "slot_mapping": slot_mapping,
        }
        states = list(zip(conv_states, rnn_states, strict=True))
        hidden_states, presents = self.transformer(
            input_ids, use_cache, kv_cache_params, attention_params, states, shared
        )
        plugins = default_net().plugin_config
        if not self.gather_context_logits:
            hidden_states = gather_last_token_logits(
                hidden_states, last_token_ids_for_logits, plugins.remove_input_padding
            )
        logits = self.lm_head(hidden_states)
        logits.mark_output("logits", self._logits_dtype)
        names = [] if plugins.paged_kv_cache else [(0, "present_key_value")]
        if not plugins.paged_state:
            names += [(1, "present_conv_state"), (2, "present_rnn_state")]
        for place, name in names:
            for index, present in enumerate(presents):
                if present[place] is not None:
                    present[place].mark_output(f"{name}_{index}", self.dtype)
        return (logits, *zip(*presents, strict=True))

    def prepare_recurrent_inputs(self, ranges, num_profiles):
        """Return the states of the recurrent layers: pointers where paged, else tensors."""
        config, plugins = self.config, default_net().plugin_config
        size = config.mapping.tp_size
        batch = ("batch_size", ranges["bb_range"])
        num_heads = config.rnn_hidden_size // config.rnn_head_size // size
        shapes = {
            "conv_state": [config.conv_kernel - 1, config.rnn_conv_dim_size // size],
            "rnn_state": [num_heads, config.state_size, config.rnn_head_size],
        }

        def state(kind, index):
            if plugins.paged_state:
                one = OrderedDict([("buffer_count", [1] * num_profiles)])
                dtype = str_dtype_to_trt("int64")
                return Tensor(name=f"{kind}_ptr_{index}", dtype=dtype, shape=[1], dim_range=one)
            sizes = [(f"{kind}_{n}", [s] * num_profiles) for n, s in enumerate(shapes[kind])]
            return Tensor(
                name=f"past_{kind}_{index}",
                dtype=self.dtype,
                shape=[-1, *shapes[kind]],
                dim_range=OrderedDict([batch, *sizes]),
            )

        states = {
            kind: [
                state(kind, index) if layer == "recurrent" else None
                for index, layer in enumerate(self.layer_types)
            ]
            for kind in shapes
        }
        slot_mapping = None
        if plugins.paged_state:
            slot_mapping = Tensor(
                name="slot_mapping",
                dtype=trt.int32,
                shape=[-1],
                dim_range=OrderedDict([batch]),
            )
        return {
            "conv_states": states["conv_state"],
            "rnn_states": states["rnn_state"],
            "slot_mapping": slot_mapping,
        }

    def prepare_inputs(
        self,
        max_batch_size,
        max_input_len,
        max_seq_len,
        max_num_tokens,
        use_cache,
        max_beam_width=1,
        opt_num_tokens=None,
        opt_batch_size=0,
        prompt_embedding_table_size=0,
        max_draft_len=0,
        gather_context_logits=False,
        lora_target_modules=None,
        speculative_decoding_draft_tokens_external=False,
    ):
        """Return the network's inputs, by the names of `forward`."""
        config, plugins = self.config, default_net().plugin_config
        mapping = config.mapping
        if max_beam_width != 1 or max_draft_len or speculative_decoding_draft_tokens_external:
            raise ValueError("no beam search and no draft tokens: the SSM state can't go back")
        wanted = ("gpt_attention_plugin", "mamba_conv1d_plugin", "remove_input_padding")
        for name in wanted:
            if not getattr(plugins, name):
                raise ValueError(f"trtllm-build needs --{name}")
        self.gather_context_logits = gather_context_logits
        kv_cache_type = get_kv_cache_type_from_legacy(use_cache, plugins.paged_kv_cache)
        has_two_profiles = GenerationMixin.has_ctx_gen_opt_profiles(
            use_gpt_attention_plugin=plugins.gpt_attention_plugin,
            use_gemm_plugin=plugins.gemm_plugin,
            remove_input_padding=True,
            kv_cache_type=kv_cache_type,
        )
        num_profiles, ranges = GenerationMixin.get_profiles_ranges(
            max_batch_size=max_batch_size,
            max_beam_width=max_beam_width,
            max_input_len=max_input_len,
            max_num_tokens=max_num_tokens,
            max_draft_len=max_draft_len,
            opt_batch_size=opt_batch_size,
            opt_num_tokens=opt_num_tokens,
            enable_ctx_gen_opt_profiles=has_two_profiles,
            multiple_profiles=plugins.multiple_profiles,
            kv_cache_type=kv_cache_type,
        )
        if mapping.tp_size > 1:
            current_all_reduce_helper().set_workspace_tensor(mapping, num_profiles)
        attention = self.prepare_attention_inputs(
            max_batch_size=max_batch_size,
            max_beam_width=max_beam_width,
            max_input_len=max_input_len,
            max_seq_len=max_seq_len,
            num_kv_heads=config.num_key_value_heads,
            head_size=config.head_size,
            num_layers=config.num_hidden_layers,
            kv_dtype=str_dtype_to_trt(config.kv_dtype),
            kv_cache_type=kv_cache_type,
            num_profiles=num_profiles,
            enable_ctx_gen_opt_profiles=has_two_profiles,
            remove_input_padding=True,
            use_gpt_attention_plugin=plugins.gpt_attention_plugin,
            tokens_per_block=plugins.tokens_per_block,
            mapping=mapping,
            streamingllm=plugins.streamingllm,
            attn_layer_idx=[i for i, kind in enumerate(self.layer_types) if kind == "attention"],
        )
        tokens = {"dtype": trt.int32, "shape": [-1]}
        input_ids, position_ids = (
            Tensor(name=name, dim_range=OrderedDict([(dim, ranges[sizes])]), **tokens)
            for name, dim, sizes in (
                ("input_ids", "num_tokens", "num_tokens_range"),
                ("position_ids", "position_ids_num_tokens_range", "num_tokens_range"),
            )
        )
        last_token_ids = Tensor(
            name="last_token_ids",
            dim_range=OrderedDict([("batch_size_last_token_ids", ranges["bbd_range"])]),
            **tokens,
        )
        kv_names = (
            "past_key_value",
            "host_past_key_value_lengths",
            "host_max_attention_window_sizes",
            "host_sink_token_length",
            "kv_cache_block_offsets",
            "host_kv_cache_block_offsets",
            "host_kv_cache_pool_pointers",
            "host_kv_cache_pool_mapping",
            "cache_indirection",
        )
        attention_names = (
            "sequence_length",
            "context_lengths",
            "host_context_lengths",
            "host_request_types",
            "host_runtime_perf_knobs",
            "host_context_progress",
        )
        return {
            "input_ids": input_ids,
            "position_ids": position_ids,
            "use_cache": True,
            "attention_mask": attention["attention_mask"],
            "kv_cache_params": KeyValueCacheParams(**{name: attention[name] for name in kv_names}),
            "attention_params": AttentionParams(
                max_context_length=max_input_len,
                **{name: attention[name] for name in attention_names},
            ),
            **self.prepare_recurrent_inputs(ranges, num_profiles),
            "host_request_types": attention["host_request_types"],
            "last_token_ids": last_token_ids,
            "last_token_ids_for_logits": None if gather_context_logits else last_token_ids,
            "host_context_lengths": attention["host_context_lengths"],
        }
