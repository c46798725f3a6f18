"""Random small models of both architectures, for hypothesis to draw."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from support import reference


@dataclass(frozen=True)
class Sizes:
    """What a model's dimensions are drawn from."""

    intermediate: tuple[int, ...]
    head_dim: tuple[int, ...]
    mamba_head_dim: tuple[int, ...]
    state: tuple[int, ...]


EVEN = Sizes((8, 36, 64), (8, 16, 32), (4, 12, 20), (8, 16, 24))
ODD = Sizes((8, 36, 65), (6, 16, 36), (4, 7, 20), (8, 11, 24))  # fill no vector or panel


@st.composite
def experts(draw: st.DrawFn) -> dict[str, Any]:
    """Random dimensions of a block of experts."""
    groups, in_group = draw(st.integers(1, 3)), draw(st.integers(2, 5))
    chosen_groups = draw(st.integers(1, groups))
    return {
        "n_routed_experts": groups * in_group,
        "n_group": groups,
        "topk_group": chosen_groups,
        "num_experts_per_tok": draw(st.integers(1, min(chosen_groups * in_group, 6))),
        "norm_topk_prob": draw(st.booleans()),
        "routed_scaling_factor": draw(st.sampled_from([1.0, 2.5])),
        "moe_intermediate_size": draw(st.sampled_from([8, 17, 36])),
        "moe_shared_expert_intermediate_size": draw(st.sampled_from([8, 33])),
        "moe_latent_size": draw(st.sampled_from([None, 8, 20])),
    }


@st.composite
def models(draw: st.DrawFn, sizes: Sizes = EVEN, letters: str = "M-*E") -> Any:
    """Random small models of both architectures; a hybrid's layers are some of `letters`."""
    kv_heads = draw(st.integers(1, 3))
    shared = {
        "seed": draw(st.integers(0, 2**31)),
        "vocab_size": draw(st.integers(11, 130)),
        "hidden_size": draw(st.sampled_from([16, 24, 40, 72])),
        "intermediate_size": draw(st.sampled_from(sizes.intermediate)),
        "num_key_value_heads": kv_heads,
        "num_attention_heads": kv_heads * draw(st.integers(1, 3)),
        "head_dim": draw(st.sampled_from(sizes.head_dim)),
    }
    if draw(st.booleans()):
        tied = draw(st.booleans())
        return reference.qwen3(draw(st.integers(1, 2)), tie_word_embeddings=tied, **shared)
    groups = draw(st.integers(1, 3))
    layers = draw(st.text(letters, min_size=1, max_size=5))
    if "E" in layers:
        shared |= draw(experts())
    return reference.nemotron_h(
        layers,
        n_groups=groups,
        mamba_num_heads=groups * draw(st.integers(1, 3)),
        mamba_head_dim=draw(st.sampled_from(sizes.mamba_head_dim)),
        ssm_state_size=draw(st.sampled_from(sizes.state)),
        conv_kernel=draw(st.integers(2, 5)),
        chunk_size=draw(st.sampled_from([4, 16])),
        **shared,
    )
