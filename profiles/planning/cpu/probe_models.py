"""The random models whose steps tell what a CPU does: each is dominated by one thing."""

from typing import Any

from nemotrt.engines.tiny.models import hybrid_config

# Prompt rows of the second measurement of the linears: enough for a GEMM's full rate.
GEMM_ROWS = 64
BATCH_SIZE = 8
SIZES = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 256}
HEADS = {"num_attention_heads": 4, "head_dim": 64}


def _model(pattern: str, hidden: int, inner: int, heads: int, head: int, **more: Any) -> Any:
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "max_position_embeddings": 4096}
    mamba = {"mamba_num_heads": heads, "mamba_head_dim": head, "n_groups": max(heads // 4, 1)}
    return hybrid_config(pattern, **{**SIZES, **sizes, **mamba, **more})


# linears: 67 million weights, which no last-level cache holds in any precision, and a head; hidden
# to inner size as in Nano-9B-v2, since a kernel's rate depends on the shape of its matrix.
# cached: 4 million, which most caches hold. states: 1.3 MB a layer and sequence, with few weights.
# small: kernels of little work, though enough to be shared by all threads; of each kind about as
# many as in the hybrids.
PROBE_MODELS = {
    "linears": _model("---------", 1024, 3584, 2, 16, vocab_size=32768),
    "cached": _model("--", 1024, 1024, 2, 16),
    "states": _model("MMMM", 64, 64, 32, 80),
    "small": _model("M-M-M*-M-M-M*-", 256, 512, 8, 64, ssm_state_size=64, **HEADS),
}
