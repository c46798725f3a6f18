"""Source: 1.2 tensorrt_llm/models/generation_mixin.py."""

from collections import OrderedDict

from ..functional import Tensor

INPUTS = {
    "sequence_length": "int32",
    "host_past_key_value_lengths": "int32",
    "host_max_attention_window_sizes": "int32",
    "host_sink_token_length": "int32",
    "context_lengths": "int32",
    "host_context_lengths": "int32",
    "host_request_types": "int32",
    "cache_indirection": "int32",
    "kv_cache_block_offsets": "int32",
    "host_kv_cache_block_offsets": "int32",
    "host_kv_cache_pool_pointers": "int64",
    "host_kv_cache_pool_mapping": "int32",
    "host_runtime_perf_knobs": "int64",
    "host_context_progress": "int64",
}


class GenerationMixin:
    @staticmethod
    def has_ctx_gen_opt_profiles(
        use_gpt_attention_plugin=False,
        use_gemm_plugin=False,
        use_mamba_conv1d_plugin=False,
        remove_input_padding=False,
        paged_state=False,
        kv_cache_type="continuous",
    ):
        assert kv_cache_type in ("paged", "continuous", "disabled")
        return False

    @staticmethod
    def get_profiles_ranges(
        *,
        max_batch_size,
        max_beam_width,
        max_input_len,
        max_num_tokens,
        max_draft_len,
        opt_batch_size,
        opt_num_tokens,
        enable_ctx_gen_opt_profiles,
        multiple_profiles,
        kv_cache_type="continuous",
    ):
        batch = [[1, (max_batch_size + 1) // 2, max_batch_size]]
        tokens = [[1, min(max_num_tokens, max_batch_size), max_num_tokens]]
        ranges = {
            "bb_range": batch,
            "bbd_range": batch,
            "inlen_range": [[1, 1, max_input_len]],
            "position_ids_inlen_range": [[1, 1, max_input_len]],
            "num_tokens_range": tokens,
            "tokens_per_engine_step_range": [[1, 1, 1]],
            "position_ids_num_tokens_range": tokens,
        }
        return 1, ranges

    def prepare_attention_inputs(
        self,
        *,
        max_batch_size,
        max_beam_width,
        max_input_len,
        max_seq_len,
        num_kv_heads,
        head_size,
        num_layers,
        kv_dtype,
        kv_cache_type,
        num_profiles=1,
        enable_ctx_gen_opt_profiles=False,
        remove_input_padding=False,
        use_gpt_attention_plugin=False,
        tokens_per_block=32,
        mapping=None,
        streamingllm=False,
        attn_layer_idx=None,
        opt_batch_size=None,
        num_kv_heads_per_layer=None,
    ):
        local = [i for i in mapping.pp_layers(num_layers) if i in attn_layer_idx]
        assert attn_layer_idx.index(local[0]) == 0
        assert kv_cache_type == "paged"
        tensors = {name: _any(name, dtype) for name, dtype in INPUTS.items()}
        return {"attention_mask": None, "past_key_value": [None] * num_layers, **tensors}


def _any(name, dtype):
    """Return an input whose shape is not the model class's to say."""
    from .._common import default_net

    ndim = default_net().feeds[name].ndim
    sizes = OrderedDict((str(i), [[0, 1, 1 << 30]]) for i in range(ndim))
    return Tensor(name=name, dtype=dtype, shape=[-1] * ndim, dim_range=sizes)
